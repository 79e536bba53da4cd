"""Mean attention distance, against stored values and what must hold for any attention."""

import json

import keras
import numpy as np
import pytest

from vit_tf.analysis.attention_distance import (
    attention_distance,
    model_attention_distance,
    patch_distances,
    plot_attention_distance,
)
from vit_tf.models import create_model, extract_features

TINY = {"image_size": 32, "width": 16, "depth": 3, "num_heads": 2, "mlp_dim": 8, "num_classes": 3}


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden" / "inspection" / "attention_distance"
    tolerance = json.loads((folder / "meta.json").read_text())["tolerance"]
    with np.load(folder / "io.npz") as stored:
        return {**stored}, tolerance


def random_attention(layers, tokens, heads=2, images=3, seed=0):
    weights = np.random.default_rng(seed).random((layers, images, heads, tokens, tokens))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def test_distances_between_patches_are_the_stored_ones(golden):
    stored, tolerance = golden
    np.testing.assert_allclose(patch_distances((4, 4), 16), stored["pixel_distances"], **tolerance)


def test_rows_columns_and_both_sides_of_a_patch_count():
    found = patch_distances((2, 3), (4, 10)).reshape(2, 3, 2, 3)
    assert found[0, 0, 1, 0] == 4 and found[0, 0, 0, 2] == 20
    assert found[0, 2, 1, 0] == pytest.approx(np.sqrt(4**2 + 20**2))


@pytest.mark.parametrize(
    ("renormalize", "key"), [(True, "distance"), (False, "distance_without_renormalising")]
)
def test_distances_are_the_stored_ones(golden, renormalize, key):
    stored, tolerance = golden
    found = attention_distance(stored["attention"], (4, 4), 16, renormalize=renormalize)
    np.testing.assert_allclose(found, stored[key], **tolerance)


def test_rows_are_not_renormalised_unless_asked_for(golden):
    stored, tolerance = golden
    found = attention_distance(stored["attention"], (4, 4), 16)
    np.testing.assert_allclose(found, stored["distance_without_renormalising"], **tolerance)


def test_single_images_are_as_far_as_stored(golden):
    stored, tolerance = golden
    found = [
        attention_distance(stored["attention"][:, image : image + 1], (4, 4), 16, True)
        for image in range(2)
    ]
    np.testing.assert_allclose(np.stack(found, axis=1), stored["distance_per_image"], **tolerance)


@pytest.mark.parametrize("grid", [(3, 3), (2, 5)])
def test_uniform_attention_is_as_far_as_patches_are_apart_on_average(grid):
    patches = grid[0] * grid[1]
    even = np.full((2, 1, 3, patches, patches), 1 / patches)
    expected = patch_distances(grid, 8).mean()
    np.testing.assert_allclose(attention_distance(even, grid, 8), np.full((2, 3), expected))
    # Behind other tokens it is when rows are renormalised, and else smaller by what these get.
    tokens = patches + 2
    behind = np.full((2, 1, 3, tokens, tokens), 1 / tokens)
    np.testing.assert_allclose(attention_distance(behind, grid, 8, renormalize=True), expected)
    np.testing.assert_allclose(attention_distance(behind, grid, 8), expected * patches / tokens)


def test_attention_to_oneself_has_no_distance_and_to_a_neighbour_a_patch():
    itself = np.eye(4)[None, None, None]
    assert attention_distance(itself, (2, 2), 16) == 0
    neighbour = np.eye(4)[[1, 0, 3, 2]][None, None, None]
    assert attention_distance(neighbour, (2, 2), 16) == 16


def test_a_head_that_sees_the_class_token_alone_has_distance_0():
    weights = np.zeros((1, 1, 1, 5, 5))
    weights[..., 0] = 1
    assert attention_distance(weights, (2, 2), 16) == 0
    assert attention_distance(weights, (2, 2), 16, renormalize=True) == 0


@pytest.mark.parametrize(
    ("family", "changes", "arguments", "patch"),
    [
        ("vit", {"patch_size": 8, "pool": "token", "num_registers": 2}, {}, 8),
        ("vit", {"patch_size": (8, 16), "pool": "map"}, {}, (8, 16)),
        ("deit_distilled", {"patch_size": 8}, {}, 8),
        ("flexivit", {"patch_size": 16}, {"patch_size": 8}, 8),
        ("hybrid", {"resnet_stages": (), "resnet_width_factor": 0.5, "patch_size": 2}, {}, 8),
    ],
)
def test_a_models_distance_is_that_of_its_attention(family, changes, arguments, patch):
    keras.utils.set_random_seed(0)
    model = create_model(family, **TINY, **changes)
    images = np.random.default_rng(0).normal(size=(5, 32, 32, 3)).astype(np.float32)
    names = [f"block{layer:02d}/attn_weights" for layer in range(3)]
    weights = extract_features(model, images, names, **arguments).values()
    grid = tuple(int(side) for side in 32 // np.broadcast_to(patch, 2))
    for renormalize in (False, True):
        found = model_attention_distance(model, images, renormalize, batch_size=2, **arguments)
        expected = attention_distance(list(weights), grid, patch, renormalize)
        assert found.shape == (3, 2)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_what_has_no_distance_is_named():
    with pytest.raises(ValueError, match="attention of no layer"):
        attention_distance([], (2, 2), 16)
    with pytest.raises(ValueError, match="between 4 tokens cannot be between 9 patches"):
        attention_distance(random_attention(1, 4), (3, 3), 16)
    mixer = create_model("mixer", image_size=16, patch_size=8, width=8, depth=1, tokens_mlp_dim=4,
                         channels_mlp_dim=4, num_classes=2)  # fmt: skip
    with pytest.raises(ValueError, match="the model Mixer has no attention between tokens"):
        model_attention_distance(mixer, np.zeros((1, 16, 16, 3), np.float32))


def test_the_picture_has_a_point_a_head_and_a_line_through_the_means():
    distances = {"deep": np.arange(8.0).reshape(4, 2), "shallow": np.ones((2, 3))}
    figure = plot_attention_distance(distances, {"deep": 9.0, "shallow": 5.0})
    (axes,) = figure.axes
    points = [collection.get_offsets() for collection in axes.collections]
    assert [len(of_model) for of_model in points] == [8, 6]
    np.testing.assert_array_equal(points[0][:, 1], np.arange(8))
    assert len(set(np.round(points[0][:, 0], 6))) == 4
    deep, even, _, _ = axes.lines
    np.testing.assert_array_equal(deep.get_ydata(), [0.5, 2.5, 4.5, 6.5])
    assert list(even.get_ydata()) == [9, 9]
    assert axes.get_ylim()[0] == 0 and axes.get_ylim()[1] > 9
    assert [text.get_text() for text in axes.get_legend().texts] == ["deep", "shallow"]
