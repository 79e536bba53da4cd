"""CvT: grids of any image, convolutional projections, its scale, its class token, its variants."""

import numpy as np
import pytest

import vit_tf
from vit_tf.models import create_model, extract_features, without_allocation

TINY = {"width": (8, 12), "depth": (1, 2), "num_heads": (2, 3), "num_classes": 5}


def tiny(**changes):
    """A model with random weights, batch statistics too."""
    model = create_model("cvt", **{**TINY, "image_size": (44, 30), **changes})
    random = np.random.default_rng(0)
    for weight in model.weights:
        value = random.normal(scale=0.4, size=weight.shape)
        weight.assign(np.exp(value) if weight.path.endswith(("variance", "gamma")) else value)
    return model


def images_for(model, batch=2):
    shape = (batch, *model.image_size, model.channels)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def features(model, *names, **arguments):
    found = extract_features(model, images_for(model), names, **arguments)
    return [np.asarray(found[name], np.float64) for name in names]


def dense(layer, inputs):
    return inputs @ np.asarray(layer.kernel, np.float64) + np.asarray(layer.bias, np.float64)


@pytest.mark.parametrize(
    ("size", "grids"),
    [
        ((224, 224), ((56, 56), (28, 28), (14, 14))),
        ((384, 384), ((96, 96), (48, 48), (24, 24))),
        ((225, 100), ((56, 25), (28, 13), (14, 7))),  # 7x7 stride 4 rounds, 3x3 stride 2 up
        ((44, 28), ((11, 7), (6, 4), (3, 2))),
        ((3, 8), ((1, 2), (1, 1), (1, 1))),
    ],
)
def test_grids_of_the_published_variants(size, grids):
    found = without_allocation(lambda: create_model("cvt_13", image_size=size, depth=1).grid_sizes)
    assert found == grids


def test_weights_fit_every_image_size(tmp_path):
    path = str(tmp_path / "model.pth")
    vit_tf.save_checkpoint(tiny(), path)
    for size in ((9, 70), (64, 64)):
        model = create_model("cvt", **TINY, image_size=size)
        report = vit_tf.load_checkpoint(model, path, strict=True)
        assert len(report.loaded) == len(model.weights) and not report.resized
        assert model(images_for(model)).shape == (2, 5)


def test_products_are_scaled_by_the_whole_width():
    model = tiny()
    names = ("conv_proj_q", "conv_proj_k", "attn_weights")
    queries, keys, weights = features(model, *(f"stage0/block00/{name}" for name in names))
    query, key, _ = model.blocks[0].attention.projections
    by_head = [dense(query, queries).reshape(2, -1, 2, 4), dense(key, keys).reshape(2, -1, 2, 4)]
    scores = np.einsum("bqhd,bkhd->bhqk", *by_head) / np.sqrt(8)  # not of the head's 4
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(weights, expected, atol=1e-5)


def test_the_class_token_passes_the_convolutions_by():
    """Its key is its own projection: without a grid it would attend to nothing else."""
    model = tiny()
    stage = "stage1/block01"
    names = ("stage1/block00/out", f"{stage}/conv_proj_q", f"{stage}/conv_proj_k")
    tokens, queries, keys = features(model, *names)
    (weights,) = features(model, f"{stage}/attn_weights")
    assert queries.shape[1] == tokens.shape[1] - 1 == 24 and keys.shape[1] == 6
    assert weights.shape == (2, 3, 25, 7)
    block = model.blocks[2]
    normed = np.asarray(block.attention_norm(tokens.astype(np.float32)), np.float64)
    query, key, _ = (
        lambda x, layer=layer: dense(layer, x).reshape(2, -1, 3, 4)
        for layer in block.attention.projections
    )
    all_keys = np.concatenate([normed[:, :1], keys], axis=1)
    scores = np.einsum("bqhd,bkhd->bhqk", query(normed[:, :1]), key(all_keys)) / np.sqrt(12)
    expected = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(weights[:, :, :1], expected, atol=1e-5)


@pytest.mark.parametrize(("stride", "keys"), [(1, 77), (2, 24), (3, 12), (4, 6)])
def test_keys_of_an_odd_grid_are_rounded_up(stride, keys):
    model = tiny(image_size=(44, 28), key_value_stride=(stride, 2))
    (weights,) = features(model, "stage0/block00/attn_weights")
    assert model.grid_sizes[0] == (11, 7)
    assert weights.shape[-2:] == (77, keys)


def test_without_a_class_token_the_mean_is_classified():
    model = tiny(pool="gap")
    (out, pooled) = features(model, "stage1/out", "head_input")
    normed = model.encoder_norm(out.astype(np.float32))
    np.testing.assert_allclose(pooled, np.mean(normed, axis=(1, 2)), atol=1e-5)
    assert not any("class_token" in weight.path for weight in model.weights)


def test_maps_are_what_the_next_stage_takes():
    model = tiny()
    out, embedded = features(model, "stage0/out", "stage1/embed")
    np.testing.assert_allclose(model.embeddings[1](out.astype(np.float32)), embedded, atol=1e-5)


def test_one_image_is_classified_as_in_a_batch():
    model = tiny()
    images = images_for(model)
    np.testing.assert_allclose(model(images[:1]), np.asarray(model(images))[:1], atol=1e-5)


def test_training_takes_the_statistics_of_the_batch():
    model = tiny()
    (queries,) = features(model, "stage0/block00/conv_proj_q", training=True)
    norm = model.blocks[0].attention.norms[0]
    normalized = (queries - np.asarray(norm.beta)) / np.asarray(norm.gamma)
    np.testing.assert_allclose(normalized.mean(axis=(0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(normalized.std(axis=(0, 1)), 1, atol=1e-3)


def test_only_the_last_stage_drops_blocks():
    model = tiny(depth=(2, 3), stochastic_depth=0.3)
    rates = [block.attention_depth.rate for block in model.blocks]
    np.testing.assert_allclose(rates, [0, 0, 0, 0.15, 0.3])


def test_numbers_are_those_of_the_reference():
    model = tiny()
    block = model.blocks[0]
    norms = (block.attention_norm, block.mlp_norm, model.embeddings[0].norm, model.encoder_norm)
    assert {norm.epsilon for norm in norms} == {1e-5}
    assert {norm.epsilon for norm in block.attention.norms} == {1e-5}
    assert {norm.momentum for norm in block.attention.norms} == {0.9}
    assert block.mlp.activation == "quick_gelu"
    assert [conv.bias for conv in block.attention.convolutions] == [None] * 3


@pytest.mark.parametrize(
    ("name", "crop", "size"),
    [("CvT-13", 0.875, 224), ("CvT-21", 0.875, 224), ("CvT-W24", None, 384)],
)
def test_variants_and_their_preprocessing(name, crop, size):
    model = without_allocation(lambda: create_model(name))
    facts = model.preprocessing
    assert model.variant == name.lower().replace("-", "_")
    assert (facts.crop_ratio, facts.image_size) == (crop, (size, size))
    assert facts.interpolation == "bicubic" and facts.mean == (0.485, 0.456, 0.406)


def test_paths_of_weights_are_stable():
    paths = [weight.path for weight in tiny(depth=1).weights]
    parts = [path.removeprefix("cvt/stage1/") for path in paths if path.startswith("cvt/stage1/")]
    assert {part.partition("/")[0] for part in parts} == {"class_token", "embedding", "block00"}
    assert "block00/attention/key_norm/moving_variance" in parts
    assert "block00/attention/value_conv/kernel" in parts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": (1, 2, 3)}, "depth is one value for each of 2 stages"),
        ({"depth": (1, 0)}, "depth is a whole number from 1 up"),
        ({"num_heads": 5}, "num_heads=5 does not divide width=8"),
        ({"projection_kernel": 2}, "has an odd side"),
        ({"image_size": 2}, r"too small: the stages' grids would be 0 x 0"),
        ({"pool": "map"}, "pool='map' is not one of 'token', 'gap'"),
        ({"width": ()}, "The number of stages is a whole number from 1 up"),
    ],
)
def test_configuration_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny(**changes)
