"""Similarity of position embeddings, against stored values and of every kind of position."""

import json

import keras
import numpy as np
import pytest

from vit_tf.analysis.position_similarity import (
    model_position_similarity,
    plot_position_similarity,
    position_similarity,
    position_table,
)
from vit_tf.models import create_model

TINY = {"image_size": 32, "width": 16, "depth": 1, "num_heads": 2, "mlp_dim": 8, "num_classes": 3}
TABLE = np.random.default_rng(0).normal(size=(15, 8))


def cosine(a, b):
    return a @ b / np.sqrt((a @ a) * (b @ b))


def test_similarities_are_the_stored_ones(shared):
    folder = shared / "golden" / "inspection" / "position_similarity"
    tolerance = json.loads((folder / "meta.json").read_text())["tolerance"]
    with np.load(folder / "io.npz") as stored:
        for found in (
            position_similarity(stored["pos_embedding"]),
            position_similarity(stored["pos_embedding"][0], (4, 4)),
        ):
            np.testing.assert_allclose(found, stored["cosine"], **tolerance)


@pytest.mark.parametrize("extra", [0, 1, 2, 3])
def test_patches_are_the_last_rows_of_any_grid(extra):
    rows, columns = 3, (15 - extra) // 3
    table = TABLE[: extra + rows * columns]
    found = position_similarity(table, (rows, columns))
    assert found.shape == (rows, columns, rows, columns)
    for i, j, k, m in np.ndindex(*found.shape):
        expected = cosine(table[extra + i * columns + j], table[extra + k * columns + m])
        assert found[i, j, k, m] == pytest.approx(expected)


@pytest.mark.parametrize(("positions", "side"), [(9, 3), (10, 3), (11, 3), (1, 1), (4, 2)])
def test_a_square_grid_need_not_be_named(positions, side):
    assert position_similarity(TABLE[:positions]).shape == (side,) * 4


def test_an_embedding_of_zeros_is_similar_to_none():
    found = position_similarity(np.array([[0.0, 0], [1, 0], [0, 2], [3, 0]]))
    np.testing.assert_array_equal(found[0, 0], [[0, 0], [0, 0]])
    np.testing.assert_array_equal(found[0, 1], [[0, 1], [0, 1]])


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("vit", {"pool": "token", "patch_size": 8}),
        ("vit", {"pool": "gap", "patch_size": (16, 8)}),
        ("deit_distilled", {"patch_size": 8}),
        ("deit3", {"patch_size": 8, "num_registers": 2}),
        ("hybrid", {"resnet_stages": (), "resnet_width_factor": 0.5, "patch_size": 2}),
        ("flexivit", {"patch_size": 8, "position_grid_size": 3}),
    ],
)
def test_a_models_learned_table_is_found_in_every_family(family, changes):
    model = create_model(family, **TINY, **changes)
    (table,) = [w.numpy()[0] for w in model.weights if w.path.endswith("positions/table")]
    rows, columns = model.position_grid
    patches = table[-rows * columns :]
    found = model_position_similarity(model)
    assert found.shape == (rows, columns, rows, columns)
    assert found[0, 1, rows - 1, 0] == pytest.approx(cosine(patches[1], patches[-columns]))


def test_fixed_sines_and_cosines_are_what_the_model_adds():
    model = create_model("vit", **TINY, patch_size=8, pool="token", position_embedding="sincos2d")
    zeros = keras.ops.zeros((1, 17, 16))
    added = keras.ops.convert_to_numpy(model.positions(zeros))[0]
    np.testing.assert_allclose(position_table(model), added[1:], atol=1e-6)
    found = model_position_similarity(model)
    # The similarity of such positions depends on nothing but the way from one to the other.
    assert found[0, 0, 1, 2] == pytest.approx(found[2, 1, 3, 3], abs=1e-6)
    assert found[0, 0, 0, 1] < 1


@pytest.mark.parametrize(
    ("family", "changes", "name"),
    [
        ("vit", {"patch_size": 8, "position_embedding": "none"}, "ViT"),
        ("mixer", {"patch_size": 8}, "Mixer"),
    ],
)
def test_a_model_without_positions_is_named(family, changes, name):
    sizes = TINY
    if family == "mixer":
        kept = ("image_size", "width", "depth", "num_classes")
        sizes = {key: TINY[key] for key in kept} | {"tokens_mlp_dim": 4, "channels_mlp_dim": 4}
    model = create_model(family, **sizes, **changes)
    with pytest.raises(ValueError, match=f"the model {name} has no position embedding"):
        model_position_similarity(model)


def test_tables_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"given \[2, 3, 4\]"):
        position_similarity(np.zeros((2, 3, 4)))
    with pytest.raises(ValueError, match="table of 15 positions is none of 4x4 patches"):
        position_similarity(TABLE, (4, 4))
    with pytest.raises(ValueError, match="of 15 positions .* give grid_size"):
        position_similarity(TABLE)


def test_the_picture_has_every_map_at_its_patchs_place():
    similarity = position_similarity(TABLE[:12], (3, 4))
    figure = plot_position_similarity({"one": similarity, "other": -similarity})
    one, other = (axes.images[0] for axes in figure.axes[:2])
    picture = np.ma.filled(one.get_array(), np.nan)
    gap = 1
    for i, j in np.ndindex(3, 4):
        top, left = i * (3 + gap), j * (4 + gap)
        np.testing.assert_array_equal(picture[top : top + 3, left : left + 4], similarity[i, j])
    assert np.isnan(picture[3]).all() and np.isnan(picture[:, 4]).all()
    assert picture.shape == (3 * 3 + 2 * gap, 4 * 4 + 3 * gap)
    assert one.get_clim() == other.get_clim() == (-1, 1)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["one", "other"]


def test_of_large_grids_evenly_spread_patches_are_drawn():
    table = np.random.default_rng(0).normal(size=(20 * 16, 4))
    figure = plot_position_similarity({"": position_similarity(table, (20, 16))})
    rows = [int(label.get_text()) for label in figure.axes[0].get_yticklabels()]
    assert len(rows) == 14 and rows[0] == 1 and rows[-1] == 20
    assert set(np.diff(rows)) == {1, 2}
