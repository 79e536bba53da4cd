"""Maps of attention over images, of every layout of tokens, against a plain computation."""

import keras
import numpy as np
import pytest

from vit_tf.analysis.attention_maps import attention_maps, plot_attention_maps, self_attention
from vit_tf.analysis.attention_overlay import attention_overlay
from vit_tf.models import create_model, extract_features

SMALL = {"image_size": 16, "num_classes": 3}
VIT = {**SMALL, "patch_size": 4, "width": 8, "depth": 3, "num_heads": 2, "mlp_dim": 8}
IMAGES = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
LAYOUTS = [  # family, what is not its default, tokens before the patches, tokens that are read
    ("vit", {"pool": "token"}, 1, slice(0, 1)),
    ("vit", {"pool": "gap"}, 0, slice(0, None)),
    ("vit", {"pool": "map", "num_registers": 2}, 2, slice(2, None)),
    ("vit", {"pool": "token", "num_registers": 3}, 4, slice(0, 1)),
    ("deit_distilled", {"num_registers": 1}, 3, slice(0, 2)),
    ("flexivit", {"pool": "token"}, 1, slice(0, 1)),
]


def model_of(family, changes):
    keras.utils.set_random_seed(1)
    model = create_model(family, **VIT, **changes)
    for layer in model.blocks:  # fresh queries and keys attend to all tokens alike
        kernel = layer.attention.query_key_value.kernel
        kernel.assign(4 * kernel)
    return model


def plain_weights(model, images, **arguments):
    """[images, layers, heads, queries, keys]."""
    names = [f"block{layer:02d}/attn_weights" for layer in range(3)]
    found = extract_features(model, images, names, **arguments)
    return np.stack([np.asarray(found[name], np.float64) for name in names], axis=1)


@pytest.mark.parametrize(("family", "changes", "before", "readers"), LAYOUTS)
def test_maps_are_of_the_tokens_that_the_model_reads(family, changes, before, readers):
    model = model_of(family, changes)
    found = attention_maps(model, IMAGES, ["rollout", "layers", "heads"], batch_size=2)
    # In the same batches: the share of a token can be 1e-9, where products' rounding shows.
    weights = np.concatenate([plain_weights(model, part) for part in (IMAGES[:2], IMAGES[2:])])
    heads = weights[..., readers, before:].mean(axis=3).reshape(3, 3, 2, 4, 4)
    np.testing.assert_allclose(found["heads"], heads, rtol=1e-4)
    np.testing.assert_allclose(found["layers"], heads.mean(axis=2), rtol=1e-4)
    tokens = before + 16
    rollout = np.eye(tokens)
    for layer in range(3):
        rollout = (weights[:, layer].mean(axis=1) + np.eye(tokens)) / 2 @ rollout
    expected = rollout[:, readers, before:].mean(axis=1).reshape(3, 4, 4)
    np.testing.assert_allclose(found["rollout"], expected, rtol=1e-4)
    assert np.ptp(expected) > 1e-3


def test_only_what_is_asked_for_is_given():
    model = model_of("vit", {})
    assert set(attention_maps(model, IMAGES)) == {"rollout"}
    assert list(attention_maps(model, IMAGES, ["heads", "rollout"])) == ["heads", "rollout"]


def test_the_pools_own_attention_is_the_probes():
    model = model_of("vit", {"pool": "map", "num_registers": 2})
    found = attention_maps(model, IMAGES, ["pool"], batch_size=2)["pool"]
    weights = extract_features(model, IMAGES, "map_head/attn_weights")["map_head/attn_weights"]
    assert found.shape == (3, 2, 4, 4)
    np.testing.assert_allclose(found.reshape(3, 2, 1, 16), weights, rtol=1e-4)
    np.testing.assert_allclose(found.sum(axis=(2, 3)), 1, rtol=1e-5)


def test_a_flexivits_maps_have_the_grid_of_the_call():
    model = model_of("flexivit", {"pool": "map"})
    found = attention_maps(model, IMAGES, ["layers", "pool"], patch_size=8)
    assert found["layers"].shape == (3, 3, 2, 2) and found["pool"].shape == (3, 2, 2, 2)
    expected = plain_weights(model, IMAGES, patch_size=8).mean(axis=(2, 3))
    np.testing.assert_allclose(found["layers"].reshape(3, 3, 4), expected, rtol=1e-4)


def test_half_precision_is_rolled_out_in_single():
    keras.utils.set_random_seed(1)
    model = create_model("vit", **VIT, dtype="mixed_bfloat16")
    found = self_attention(model, IMAGES)
    assert {weights.dtype.name for weights in found.layers} == {"float32"}
    assert attention_maps(model, IMAGES)["rollout"].dtype == np.float32


def test_what_has_no_such_map_is_named():
    model = model_of("vit", {"pool": "gap"})
    with pytest.raises(ValueError, match="'rolout' is unknown.* Did you mean 'rollout'"):
        attention_maps(model, IMAGES, ["rolout"])
    with pytest.raises(ValueError, match="the model ViT does not pool by attention"):
        attention_maps(model, IMAGES, ["pool"])
    mixer = create_model(
        "mixer", **SMALL, patch_size=8, width=8, depth=1, tokens_mlp_dim=4, channels_mlp_dim=4
    )
    with pytest.raises(ValueError, match="the model Mixer has no attention between tokens"):
        attention_maps(mixer, IMAGES)
    sizes = {"width": (8, 16), "depth": 1, "num_heads": 1, "key_dim": 4}
    levit = create_model("levit", **SMALL, **sizes)
    with pytest.raises(ValueError, match="the model LeViT has attention between tokens that are o"):
        attention_maps(levit, IMAGES)


def test_the_picture_lays_every_map_over_its_image():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 8, 12, 3), np.uint8)
    maps = {name: rng.random((2, 2, 3)) for name in ("first", "second", "third")}
    figure = plot_attention_maps(images, maps, row_titles=["a.jpg", "b.jpg"])
    shown = np.array([axes.images[0].get_array() for axes in figure.axes]).reshape(2, 4, 8, 12, 3)
    np.testing.assert_array_equal(shown[:, 0], images)
    for row, column in np.ndindex(2, 3):
        expected = attention_overlay(images[row], list(maps.values())[column][row])
        np.testing.assert_array_equal(shown[row, column + 1], expected)
    assert [axes.get_title() for axes in figure.axes[:4]] == ["", "first", "second", "third"]
    assert [axes.get_ylabel() for axes in figure.axes[::4]] == ["a.jpg", "b.jpg"]


def test_the_images_themselves_may_be_left_out():
    images = np.zeros((1, 8, 8, 3), np.uint8)
    figure = plot_attention_maps(images, {"only": np.eye(2)[None]}, with_image=False)
    (axes,) = figure.axes
    assert axes.get_title() == "only"
    with pytest.raises(ValueError, match="1 images, but 2 maps of 'only'"):
        plot_attention_maps(images, {"only": np.zeros((2, 2, 2))})
