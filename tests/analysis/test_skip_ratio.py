"""Ratios of norms against those of the streams themselves, for all kinds of tokens."""

import numpy as np
import pytest

from vit_tf import create_model, extract_features
from vit_tf.analysis.skip_ratio import SkipRatio, plot_skip_ratio, skip_ratio

TINY = {"image_size": (16, 24), "patch_size": 8, "width": 8, "depth": 2, "num_classes": 3}
ATTENTION = {"num_heads": 2, "mlp_dim": 8}
SUBLAYERS = ["block00/attn", "block00/mlp", "block01/attn", "block01/mlp"]


def random_images(count=3):
    return np.random.default_rng(0).uniform(-1, 1, (count, 16, 24, 3)).astype(np.float32)


def of_branches(model, images, sublayers, stream):
    """Norms of the stream before each branch over norms of the branch as it was recorded."""
    found = extract_features(model, images, [*stream, *sublayers])
    found = {name: np.linalg.norm(np.asarray(tensor), axis=-1) for name, tensor in found.items()}
    return np.stack(
        [(found[z] / found[f]).mean(axis=0) for z, f in zip(stream, sublayers, strict=True)]
    )


@pytest.mark.parametrize(
    ("family", "options", "class_tokens", "registers"),
    [
        ("vit", {}, 1, 0),
        ("vit", {"num_registers": 3}, 1, 3),
        ("vit", {"pool": "gap"}, 0, 0),
        ("deit_distilled", {}, 2, 0),
    ],
)
def test_each_token_has_the_ratio_of_skip_to_branch(family, options, class_tokens, registers):
    model = create_model(family, **TINY, **ATTENTION, **options)
    images = random_images()
    found = skip_ratio(model, images)
    stream = ["tokens", "block00/after_attn", "block00/out", "block01/after_attn"]
    expected = of_branches(model, images, SUBLAYERS, stream)
    assert found.sublayers == SUBLAYERS
    before = class_tokens + registers
    np.testing.assert_allclose(found.class_tokens, expected[:, :class_tokens], rtol=1e-3)
    np.testing.assert_allclose(found.registers, expected[:, class_tokens:before], rtol=1e-3)
    np.testing.assert_allclose(found.patches, expected[:, before:].reshape(4, 2, 3), rtol=1e-3)


def test_a_mixer_has_ratios_of_both_its_mixings():
    model = create_model("mixer", **TINY, tokens_mlp_dim=4, channels_mlp_dim=8)
    images, sublayers = random_images(), ["block00/token_mixing", "block00/channel_mixing"]
    found = skip_ratio(model, images)
    assert found.sublayers[:2] == sublayers and len(found.sublayers) == 4
    expected = of_branches(model, images, sublayers, ["tokens", "block00/after_token_mixing"])
    np.testing.assert_allclose(found.patches[:2], expected.reshape(2, 2, 3), rtol=1e-3)
    assert found.class_tokens.shape == (4, 0)


def test_layer_scale_counts():
    # Behind the first branch alone: those after it see another stream.
    model = create_model("vit", **TINY, **ATTENTION, layer_scale_init=1.0)
    before = skip_ratio(model, random_images()).patches[0]
    model.blocks[0].attention_scale.set_weights([np.full(8, 0.25, np.float32)])
    np.testing.assert_allclose(skip_ratio(model, random_images()).patches[0], 4 * before, rtol=1e-3)


def test_a_branch_that_adds_nothing_has_an_infinite_ratio():
    model = create_model("vit", **TINY, **ATTENTION, layer_scale_init=0.0)
    assert np.isposinf(skip_ratio(model, random_images()).patches).all()


def test_ratios_are_means_over_images_whatever_the_batches():
    model = create_model("vit", **TINY, **ATTENTION)
    images = random_images(3)
    single = [skip_ratio(model, images[n : n + 1]).patches for n in range(3)]
    found = skip_ratio(model, images, batch_size=2).patches
    np.testing.assert_allclose(found, np.mean(single, axis=0), rtol=1e-5)


def test_a_model_without_such_a_stream_is_named():
    bit = create_model("bit", image_size=32, resnet_stages=(1,), resnet_width_factor=0.5)
    with pytest.raises(ValueError, match="the model BiT has no residual stream of tokens"):
        skip_ratio(bit, random_images())


def test_the_picture_has_a_panel_a_kind_of_sublayer_and_a_line_a_kind_of_token():
    ratios = np.arange(1.0, 5.0)
    patches = ratios[:, None, None] * np.float64([[0.5, 1, 8]])
    ratio = SkipRatio(SUBLAYERS, ratios[:, None] * [3, 5], ratios[:, None] * [1, 2, 9], patches)
    attention, mlp = plot_skip_ratio(ratio, "t").axes
    assert (attention.get_title(), mlp.get_title()) == ("attn", "mlp")
    lines = {line.get_label(): list(line.get_ydata()) for line in mlp.lines[1:]}
    assert lines == {
        "patches": [2, 4],
        "class token": [6, 12],
        "distillation token": [10, 20],
        "registers": [4, 8],
    }
    (band,) = mlp.collections
    assert band.get_datalim(mlp.transData).bounds[1::2] == pytest.approx((1, 31))
    assert mlp.get_yscale() == "log"
