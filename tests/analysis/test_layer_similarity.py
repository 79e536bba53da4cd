"""CKA between the layers of models, against CKA of features taken by hand."""

import numpy as np
import pytest

from vit_tf import create_model, extract_features
from vit_tf.analysis.cka import unbiased_hsic
from vit_tf.analysis.layer_similarity import (
    LayerSimilarity,
    ModelLayers,
    layer_similarity,
    plot_layer_similarity,
)

VIT_LAYERS = ["tokens", "block00/out", "block01/out"]


@pytest.fixture(scope="module")
def vit():
    return create_model(
        "vit", image_size=16, patch_size=8, width=16, depth=2, num_heads=2, mlp_dim=16
    )


@pytest.fixture(scope="module")
def bit():
    return create_model("bit", image_size=32, resnet_stages=(1, 1), resnet_width_factor=0.5)


def random_images(size, batch=8, seed=0):
    pixels = np.random.default_rng(seed).uniform(-1, 1, (batch, size, size, 3))
    return pixels.astype(np.float32)


def cka_of_one_batch(first, second):
    own = unbiased_hsic(first, first) * unbiased_hsic(second, second)
    return unbiased_hsic(first, second) / np.sqrt(own)


def tensors(model, images, names):
    return [np.asarray(t) for t in extract_features(model, images, names).values()]


def test_all_pairs_of_layers_are_compared(vit):
    images = random_images(16)
    found = layer_similarity([images], ModelLayers(vit))
    assert found.rows == found.columns == VIT_LAYERS
    layers = tensors(vit, images, VIT_LAYERS)
    expected = [[cka_of_one_batch(a, b) for b in layers] for a in layers]
    np.testing.assert_allclose(found.cka, expected, rtol=1e-4)
    np.testing.assert_allclose(np.diag(found.cka), 1, rtol=1e-6)


def test_two_models_see_the_same_images_each_in_its_own_way(vit, bit):
    large = random_images(32)
    small = large.reshape(8, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    found = layer_similarity([(small, large)], ModelLayers(vit), ModelLayers(bit))
    columns = ["root/pool", "block1/unit01", "block2/unit01"]
    assert (found.rows, found.columns) == (VIT_LAYERS, columns)
    of_vit, of_bit = tensors(vit, small, VIT_LAYERS), tensors(bit, large, columns)
    expected = [[cka_of_one_batch(a, b) for b in of_bit] for a in of_vit]
    np.testing.assert_allclose(found.cka, expected, rtol=1e-4)


def test_batches_are_read_once_and_averaged(vit):
    batches = [random_images(16, seed=seed) for seed in range(3)]
    found = layer_similarity(iter(batches), ModelLayers(vit, ["tokens", "block01/out"]))
    sums = np.zeros(3)
    for images in batches:
        a, b = tensors(vit, images, ["tokens", "block01/out"])
        sums += [unbiased_hsic(a, b), unbiased_hsic(a, a), unbiased_hsic(b, b)]
    np.testing.assert_allclose(found.cka[0, 1], sums[0] / np.sqrt(sums[1] * sums[2]), rtol=1e-4)


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [("token", lambda tokens: tokens[:, 0]), ("gap", lambda tokens: tokens[:, 1:].mean(axis=1))],
)
def test_class_token_or_mean_patch_can_stand_for_a_layer(vit, pooling, pool):
    images, names = random_images(16), ["block00/out", "block01/out"]
    found = layer_similarity([images], ModelLayers(vit, names, pooling))
    first, second = map(pool, tensors(vit, images, names))
    np.testing.assert_allclose(found.cka[0, 1], cka_of_one_batch(first, second), rtol=1e-3)


def test_the_mean_of_a_grid_is_over_its_cells(bit):
    images, names = random_images(32), ["root/pool", "block2/unit01"]
    found = layer_similarity([images], ModelLayers(bit, names, "gap"))
    first, second = (grid.mean(axis=(1, 2)) for grid in tensors(bit, images, names))
    np.testing.assert_allclose(found.cka[0, 1], cka_of_one_batch(first, second), rtol=1e-3)


def test_a_class_token_that_saw_nothing_yet_is_like_nothing(vit):
    found = layer_similarity([random_images(16)], ModelLayers(vit, pooling="token"))
    assert np.isnan(found.cka[0]).all() and np.isnan(found.cka[:, 0]).all()
    assert np.isfinite(found.cka[1:, 1:]).all()


def test_patches_of_a_flexible_model_are_those_of_its_arguments():
    model = create_model(
        "flexivit", image_size=16, patch_size=8, width=8, depth=1, num_heads=1, mlp_dim=8
    )
    images = random_images(16)
    layers = ModelLayers(model, ["tokens", "block00/out"], arguments={"patch_size": 4})
    features = extract_features(model, images, layers.names, patch_size=4)
    first, second = map(np.asarray, features.values())
    found = layer_similarity([images], layers)
    np.testing.assert_allclose(found.cka[0, 1], cka_of_one_batch(first, second), rtol=1e-4)


def test_what_cannot_be_compared_is_said(vit, bit):
    with pytest.raises(ValueError, match="one of 'flat', 'token', 'gap', got 'mean'"):
        ModelLayers(vit, pooling="mean")
    with pytest.raises(ValueError, match="no class token; take pooling='gap'"):
        ModelLayers(bit, pooling="token")
    with pytest.raises(ValueError, match="'stem' holds no class token"):
        layer_similarity([random_images(16)], ModelLayers(vit, ["stem"], "token"))
    with pytest.raises(ValueError, match="block00/out"):
        layer_similarity([random_images(16)], ModelLayers(vit, ["block0/out"]))
    with pytest.raises(ValueError, match="given two of 8 and 7 examples"):
        pair = (random_images(16), random_images(32, batch=7))
        layer_similarity([pair], ModelLayers(vit), ModelLayers(bit))
    with pytest.raises(ValueError, match="no minibatch was given"):
        layer_similarity([], ModelLayers(vit))


def test_the_picture_has_the_first_layers_bottom_left_and_thins_their_names():
    rows, columns = [f"row{n}" for n in range(20)], ["column0", "column1"]
    cka = np.linspace(0, 1, 40).reshape(20, 2)
    cka[3, 1] = np.nan
    figure = plot_layer_similarity(LayerSimilarity(cka, rows, columns), "t", "ViT", "BiT")
    axes = figure.axes[0]
    (picture,) = axes.images
    np.testing.assert_array_equal(picture.get_array().filled(np.nan), cka)
    assert picture.origin == "lower" and picture.get_clim() == (0, 1)
    assert [text.get_text() for text in axes.get_yticklabels()] == rows[::2]
    assert [text.get_text() for text in axes.get_xticklabels()] == columns
    assert (axes.get_ylabel(), axes.get_xlabel(), axes.get_title()) == ("ViT", "BiT", "t")
