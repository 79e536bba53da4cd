"""Which patches a model that drops tokens keeps, and its attention among those that are left."""

import keras
import numpy as np
import pytest

from vit_tf.analysis.attention_distance import model_attention_distance, patch_distances
from vit_tf.analysis.attention_maps import attention_maps, self_attention
from vit_tf.analysis.kept_patches import faded, kept_patches, plot_kept_patches
from vit_tf.models import create_model, extract_features

SIZES = dict(patch_size=4, width=8, depth=4, num_heads=2, mlp_dim=16, num_classes=3)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(3, 16, 24, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    stages = {"pruning_blocks": (1, 3), "keep_ratios": (0.5, 0.25)}
    model = create_model("dynamic_vit", image_size=(16, 24), **SIZES, **stages)
    for weight in model.weights:
        weight.assign(weight + RNG.normal(0, 0.1, weight.shape))
    return model


def test_every_image_keeps_as_many_and_a_stage_only_what_the_one_before_kept(model):
    kept = kept_patches(model, IMAGES, batch_size=2)
    assert kept.shape == (3, 2, 4, 6) and kept.dtype == bool
    np.testing.assert_array_equal(kept.sum(axis=(2, 3)), [[12, 6]] * 3)
    assert not (kept[:, 1] & ~kept[:, 0]).any()
    assert (kept[0] != kept[1]).any()


def test_they_are_those_that_the_model_gathers(model):
    positions = np.asarray(
        extract_features(model, IMAGES, ["predictor1/kept_positions"])["predictor1/kept_positions"]
    )
    kept = kept_patches(model, IMAGES)[:, 1].reshape(3, -1)
    for places, flags in zip(positions, kept, strict=True):
        assert set(places) == set(np.flatnonzero(flags))


def test_attention_among_those_left_stands_at_their_places(model):
    names = ["block03/attn_weights", "predictor1/kept_positions"]
    found = {k: np.asarray(v) for k, v in extract_features(model, IMAGES, names).items()}
    layers = [np.asarray(layer) for layer in self_attention(model, IMAGES).layers]
    assert [layer.shape for layer in layers] == [(3, 2, 25, 25)] * 4
    for image in range(3):
        places = np.concatenate([[0], found["predictor1/kept_positions"][image] + 1])
        expected = np.zeros((2, 25, 25))
        expected[:, places[:, None], places] = found["block03/attn_weights"][image]
        np.testing.assert_allclose(layers[3][image], expected, atol=1e-6)


def test_rollout_leaves_to_dropped_patches_what_they_had_given_before(model):
    maps = attention_maps(model, IMAGES, ["rollout", "layers"])
    kept = kept_patches(model, IMAGES)
    assert (maps["layers"][:, 3][~kept[:, 1]] == 0).all()  # the last layer sees none of them
    assert (maps["layers"][:, 3][kept[:, 1]] > 0).all()
    assert (maps["rollout"] > 0).all()  # the first one saw all


def test_distances_are_means_over_the_patches_that_are_left(model):
    distances = model_attention_distance(model, IMAGES)
    weights = np.asarray(self_attention(model, IMAGES).layers[3])[:, :, 1:, 1:]
    reach = (weights * patch_distances((4, 6), 4)).sum(axis=(2, 3)) / 6
    np.testing.assert_allclose(distances[3], reach.mean(axis=0), rtol=1e-5)


def test_what_is_dropped_is_nearly_white_and_what_is_kept_as_it_was():
    image = RNG.integers(0, 256, (5, 6, 3), np.uint8)  # patches of 2 or 3 rows
    kept = np.array([[True, False], [False, True]])
    shown = faded(image, kept)
    np.testing.assert_array_equal(shown[:3, :3], image[:3, :3])
    np.testing.assert_array_equal(shown[3:, 3:], image[3:, 3:])
    assert shown[:3, 3:].min() >= 216 and shown[3:, :3].min() >= 216


def test_a_column_for_each_stage_stands_beside_the_images(model):
    images = RNG.integers(0, 256, (2, 16, 24, 3), np.uint8)
    kept = kept_patches(model, IMAGES[:2])
    figure = plot_kept_patches(images, kept, row_titles=["a", "b"])
    assert [axes.get_title() for axes in figure.axes[:3]] == ["", "50% kept", "25% kept"]
    panels = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    np.testing.assert_array_equal(panels[0], images[0])
    np.testing.assert_array_equal(panels[5], faded(images[1], kept[1, 1]))


def test_a_model_that_keeps_all_is_refused():
    vit = create_model("vit", image_size=16, **SIZES)
    with pytest.raises(ValueError, match="a ViT keeps all patches; the family dynamic_vit drops"):
        kept_patches(vit, IMAGES)
