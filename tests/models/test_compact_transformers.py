"""Compact Transformers: tokens of convolutions, the pooled sequence, a norm in an unusual place."""

import keras
import numpy as np
import pytest

import vit_tf
from vit_tf.checkpoints import resize_position_embedding
from vit_tf.checkpoints.describe import describe_checkpoint
from vit_tf.layers import CompactEncoderBlock, ConvTokenizer, SequencePooling, sincos1d
from vit_tf.models import create_model, extract_features, resolve_name, without_allocation

BODY = {"image_size": 32, "width": 12, "depth": 2, "num_heads": 3, "mlp_dim": 20, "num_classes": 4}
CCT = {**BODY, "tokenizer_layers": 2, "tokenizer_width": 5}
PATCHES = {**BODY, "patch_size": 8}


def images_of(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def set_random(model):
    random = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(random.normal(scale=0.3, size=weight.shape))
    return model


def convolve(image, kernel, stride, padding):
    """A convolution written out, [rows, columns, channels]."""
    image = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    side = len(kernel)
    rows, columns = ((length - side) // stride + 1 for length in image.shape[:2])
    outputs = np.zeros((rows, columns, kernel.shape[-1]))
    for row, column in np.ndindex(rows, columns):
        window = image[row * stride :, column * stride :][:side, :side]
        outputs[row, column] = np.einsum("hwc,hwco->o", window, kernel)
    return outputs


def max_pool(features):
    """3 x 3 with stride 2 and one pixel of minus infinity on every side."""
    padded = np.pad(features, ((1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    rows, columns = (-(-length // 2) for length in features.shape[:2])
    outputs = np.zeros((rows, columns, features.shape[-1]))
    for row, column in np.ndindex(rows, columns):
        outputs[row, column] = padded[2 * row :, 2 * column :][:3, :3].max(axis=(0, 1))
    return outputs


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, None, None), (7, None, None), (5, 2, 0), (4, 3, 3)]
)
def test_the_tokenizer_is_convolution_relu_and_max_pooling(kernel, stride, padding):
    layer = ConvTokenizer((4, 6), kernel, stride, padding)
    images = images_of(1, 34, 29, 3)
    outputs = layer(images)
    features = images[0]
    stride = layer.stride if stride is None else stride
    padding = layer.padding if padding is None else padding
    for weight in layer.weights:
        features = max_pool(np.maximum(convolve(features, np.array(weight), stride, padding), 0))
    assert outputs.shape == layer.compute_output_shape(images.shape) == (1, *features.shape)
    np.testing.assert_allclose(outputs[0], features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(1, 1, 1), (2, 1, 1), (3, 1, 1), (5, 1, 2), (7, 2, 3)]
)
def test_stride_and_padding_follow_from_the_kernel(kernel, stride, padding):
    layer = ConvTokenizer((4,), kernel)
    assert (layer.stride, layer.padding) == (stride, padding)


def test_an_image_smaller_than_a_kernel_is_an_error():
    with pytest.raises(ValueError, match="5 x 5 with stride 1 and padding 0 .* a side of 2 pixels"):
        create_model("cct", **CCT | {"image_size": 8}, tokenizer_kernel_size=5, tokenizer_padding=0)


def test_sequence_pooling_is_a_mean_weighted_by_a_softmax_of_scores():
    layer = SequencePooling()
    tokens = images_of(2, 5, 6)
    layer.build(tokens.shape)
    kernel, bias = images_of(6, 1), np.array([0.3], np.float32)
    layer.set_weights([kernel, bias])
    weights = np.exp(tokens @ kernel + bias)
    weights /= weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(layer(tokens), (weights * tokens).sum(axis=1), atol=1e-6)


def test_the_second_norm_replaces_the_residual_stream():
    """With branches of zero a usual block is the identity; this one leaves normed tokens."""
    block = CompactEncoderBlock(2, 8, activation="gelu", norm_epsilon=1e-5)
    tokens = 3 + 2 * images_of(2, 5, 6)
    block.build(tokens.shape)
    for weight in block.weights:
        if weight.path.endswith("kernel"):
            weight.assign(np.zeros(weight.shape))
    mean, std = tokens.mean(-1, keepdims=True), tokens.std(-1, keepdims=True)
    np.testing.assert_allclose(block(tokens), (tokens - mean) / std, atol=1e-4)


def test_query_key_and_value_have_no_biases():
    model = create_model("cct", **CCT)
    biases = {w.path.partition("/block00/")[2] for w in model.weights if w.path.endswith("bias")}
    assert {"attention/out/bias", "mlp/dense_in/bias", "mlp/dense_out/bias"} == biases - {""}


def test_fresh_weights_are_the_references():
    big = {"width": 64, "depth": 1, "num_heads": 2, "mlp_dim": 128, "image_size": 32}
    cct = create_model("cct", **big, tokenizer_layers=2)
    lite = create_model("vit_lite", **big, patch_size=4)
    for index, fan_in in enumerate((27, 9 * 64)):  # He et al. 2015
        kernel = cct.tokenizer.convolutions[index].kernel
        np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / fan_in), rtol=0.1)
    np.testing.assert_allclose(
        np.std(lite.patch_embedding.projection.kernel), np.sqrt(2 / 48), rtol=0.1
    )
    np.testing.assert_allclose(np.std(lite.positions.table), 0.2, rtol=0.1)
    np.testing.assert_allclose(np.std(lite.head.kernel), 0.02, rtol=0.1)
    assert not np.any(lite.class_token.token)


def test_positions_of_sines_run_along_the_sequence_class_token_included():
    table = sincos1d(7, 5)  # a width that is not even has one sine more
    position, columns = np.arange(7)[:, None], np.arange(5)
    angles = position / 10_000 ** ((columns - columns % 2) / 5)
    np.testing.assert_allclose(table[:, ::2], np.sin(angles)[:, ::2], atol=1e-6)
    np.testing.assert_allclose(table[:, 1::2], np.cos(angles)[:, 1::2], atol=1e-6)
    model = create_model("vit_lite", **PATCHES, position_embedding="sincos1d")
    np.testing.assert_array_equal(model.positions.table[0], sincos1d(1 + 16, 12))
    assert not model.positions.trainable_weights


def test_without_positions_the_sequence_has_no_order():
    """Sequence pooling and attention do not know where a token stands."""
    model = set_random(create_model("compact_vit", **PATCHES, position_embedding="none"))
    image = images_of(1, 32, 32, 3)
    swapped = np.concatenate([image[:, :, 16:], image[:, :, :16]], axis=2)
    np.testing.assert_allclose(model(image), model(swapped), atol=1e-5)


@pytest.mark.parametrize("positions", ["learned", "sincos1d"])
@pytest.mark.parametrize(
    ("family", "config", "size", "grid"),
    [("cct", CCT, (48, 30), (12, 8)), ("vit_lite", PATCHES, (40, 16), (5, 2))],
)
def test_files_load_at_another_image_size(family, config, size, grid, positions, tmp_path):
    """Bilinearly, from the reference's files and from our own."""
    model = set_random(create_model(family, **config, position_embedding=positions))
    assert model.grid_size == ((8, 8) if family == "cct" else (4, 4))
    slots = model.num_prefix_tokens
    table = np.array(model.positions.table)
    expected = resize_position_embedding(table, model.grid_size, grid, "bilinear", slots)
    for name in ("file.pth", "file.keras"):
        path = str(tmp_path / name)
        vit_tf.save_checkpoint(model, path)
        resized = create_model(
            family, **config | {"image_size": size}, position_embedding=positions
        )
        report = vit_tf.load_checkpoint(resized, path, strict=True)
        assert list(report.resized) == ["positions/table"]
        assert resized.grid_size == grid
        np.testing.assert_allclose(resized.positions.table, expected, atol=1e-6)
        assert np.isfinite(resized(images_of(2, *size, 3))).all()


def test_a_sine_table_is_read_and_written_as_files_have_it(tmp_path):
    model = create_model("cct", **CCT, position_embedding="sincos1d")
    path = str(tmp_path / "file.pth")
    vit_tf.save_checkpoint(model, path)
    described = describe_checkpoint(path)
    assert described.arrays["classifier.positional_emb"][0] == (1, 64, 12)
    learned = create_model("cct", **CCT)
    vit_tf.load_checkpoint(learned, path, strict=True)
    images = images_of(2, 32, 32, 3)
    np.testing.assert_array_equal(learned(images), model(images))


def test_features_have_the_names_of_the_reference():
    cct = create_model("cct", **CCT)
    names = cct.intermediate_names
    assert names[:5] == ["tokenizer/pool0", "tokenizer/pool1", "stem", "with_posemb", "tokens"]
    assert "block01/after_norm1" in names and "block01/after_attn" not in names
    features = extract_features(cct, images_of(2, 32, 32, 3), names)
    np.testing.assert_array_equal(features["tokenizer/pool1"], features["stem"])
    weights = np.array(features["pool_weights"])
    assert weights.shape == (2, 64, 1)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    assert "pool_weights" not in create_model("vit_lite", **PATCHES).intermediate_names


def test_published_variants_know_their_data():
    """CIFAR-10, Flowers-102 and ImageNet, as the reference's configuration files have them."""
    sizes = {
        "cct_7_3x1": 32,
        "cvt_7_4": 32,
        "vit_lite_7_4": 32,
        "cct_7_7x2": 224,
        "cct_14_7x2": 224,
    }
    facts = {n: without_allocation(lambda n=n: create_model(n).preprocessing) for n in sizes}
    for name, size in sizes.items():
        assert facts[name].image_size == (size, size)
        assert facts[name].interpolation == "bicubic"
        assert facts[name].crop_ratio == (0.9 if name == "cct_14_7x2" else 1.0)
    assert facts["cct_7_3x1"].std == (0.2470, 0.2435, 0.2616)


@pytest.mark.parametrize(
    ("paper", "name"),
    [
        ("CCT-7/3x1", "cct_7_3x1"),
        ("CCT-14/7\N{MULTIPLICATION SIGN}2", "cct_14_7x2"),
        ("CVT-7/4", "cvt_7_4"),
        ("ViT-Lite-7/4", "vit_lite_7_4"),
    ],
)
def test_the_papers_notation_is_understood(paper, name):
    assert resolve_name(paper) == name


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("cct", {"pool": "map"}, "pool='map' is not one of 'sequence', 'token', 'gap'"),
        ("cct", {"position_embedding": "sincos2d"}, "is not one of 'learned', 'sincos1d', 'none'"),
        ("cct", {"tokenizer_layers": 0}, "tokenizer_layers is a whole number from 1 up, got 0"),
        ("cct", {"tokenizer_stride": 0}, "tokenizer_stride is a whole number from 1 up, got 0"),
        ("cct", {"tokenizer_padding": -1}, "tokenizer_padding is a whole number from 0 up"),
        ("cct", {"num_heads": 5}, "num_heads=5 does not divide width=12"),
        ("vit_lite", {"patch_size": 5}, "does not divide image_size"),
    ],
)
def test_configurations_that_cannot_be(family, changes, message):
    config = CCT if family == "cct" else PATCHES
    with pytest.raises(ValueError, match=message):
        create_model(family, **config | changes)


@pytest.mark.parametrize(
    ("family", "keyword"),
    [("cct", "patch_size"), ("compact_vit", "tokenizer_layers"), ("vit_lite", "num_registers")],
)
def test_keywords_that_mean_nothing_in_a_family_are_unknown(family, keyword):
    config = CCT if family == "cct" else PATCHES
    with pytest.raises(TypeError, match=f"has no parameter {keyword!r}"):
        create_model(family, **config | {keyword: 4})


def test_dropping_branches_and_attention_happens_in_training_alone():
    model = set_random(create_model("cct", **CCT))
    assert model.attention_dropout == model.stochastic_depth == 0.1
    images = images_of(4, 32, 32, 3)
    keras.utils.set_random_seed(0)
    assert np.any(np.array(model(images, training=True)) != np.array(model(images)))
    np.testing.assert_array_equal(model(images), model(images))
