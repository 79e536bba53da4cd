"""Maps of tokens against CKA place by place, and where tokens must find themselves."""

import numpy as np
import pytest

from vit_tf import create_model, extract_features
from vit_tf.analysis.cka import unbiased_hsic
from vit_tf.analysis.token_localisation import (
    plot_token_localisation,
    share_at_own_place,
    token_localisation,
)

TINY = {"width": 64, "depth": 1, "num_heads": 2, "mlp_dim": 16, "num_classes": 3}


@pytest.fixture(scope="module")
def vit():
    # 64 numbers can hold all 48 of a patch.
    return create_model("vit", image_size=(8, 12), patch_size=4, num_registers=1, **TINY)


def random_images(size=(8, 12), count=16, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (count, *size, 3)).astype(np.float32)


def test_each_place_is_compared_with_each_patch(vit):
    images = random_images()
    found = token_localisation(vit, [images], ["block00/out"])["block00/out"]
    assert found.shape == (6, 2, 3) and found.dtype == np.float64
    tokens = np.asarray(extract_features(vit, images, "block00/out")["block00/out"])
    for place in range(6):
        token = tokens[:, 2 + place]  # behind class token and register
        for i in range(2):
            for j in range(3):
                patch = images[:, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].reshape(16, -1)
                own = unbiased_hsic(token, token) * unbiased_hsic(patch, patch)
                expected = unbiased_hsic(token, patch) / np.sqrt(own)
                assert found[place, i, j] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_before_the_first_block_tokens_are_where_their_patches_are(vit):
    batches = (random_images(seed=seed) for seed in range(8))
    maps = token_localisation(vit, batches)
    assert list(maps) == ["tokens", "block00/out"]
    assert share_at_own_place(maps["tokens"]) == 1
    own = maps["tokens"].reshape(6, 6)
    assert np.diag(own).min() > 0.4 > 0.15 > np.abs(own - np.diag(np.diag(own))).max()


def test_layers_of_other_grids_have_other_places():
    bit = create_model("bit", image_size=32, resnet_stages=(1, 1), resnet_width_factor=0.5)
    maps = token_localisation(bit, [random_images((32, 32))], ["block1/unit01", "block2/unit01"])
    assert [of_layer.shape for of_layer in maps.values()] == [(64, 8, 8), (16, 4, 4)]
    assert np.isfinite(maps["block2/unit01"]).all()


def test_patches_of_a_flexible_model_are_those_of_its_arguments():
    model = create_model("flexivit", image_size=16, patch_size=8, **TINY)
    maps = token_localisation(model, [random_images((16, 16))], ["tokens"], patch_size=4)
    assert maps["tokens"].shape == (16, 4, 4)


def test_a_patch_that_never_changes_is_like_no_token(vit):
    images = random_images()
    images[:, :4, 4:8] = 0.3
    found = token_localisation(vit, [images], ["block00/out"])["block00/out"]
    assert np.isnan(found[:, 0, 1]).all()
    assert np.isfinite(np.delete(found.reshape(6, 6), 1, axis=1)).all()


def test_tokens_at_their_own_place_are_counted():
    maps = np.eye(4).reshape(4, 2, 2)
    assert share_at_own_place(maps) == 1
    assert share_at_own_place(maps[::-1]) == 0
    maps[0] = np.nan  # like nothing, so not at its place
    maps[1] = [[1, 0.5], [0, 0]]  # elsewhere
    maps[2] = [[np.nan, 0.2], [0.3, 0]]  # at its place, among those that there are
    assert share_at_own_place(maps) == 0.5
    assert share_at_own_place(np.zeros([4, 2, 2])) == 0


def test_what_cannot_be_cut_into_places_is_named(vit):
    with pytest.raises(ValueError, match="'pre_logits' of the shape"):
        token_localisation(vit, [random_images()], ["pre_logits"])
    with pytest.raises(ValueError, match="no minibatch was given"):
        token_localisation(vit, [])
    bit = create_model("bit", image_size=36, resnet_stages=(1, 1), resnet_width_factor=0.5)
    with pytest.raises(ValueError, match="'block2/unit01' has 5x5 vectors, .* images of 36x36"):
        token_localisation(bit, [random_images((36, 36))], ["block2/unit01"])


def test_the_picture_frames_each_token_in_its_map():
    maps = {f"block{n:02}/out": (n + 1) / 13 * np.eye(48).reshape(48, 8, 6) for n in range(13)}
    figure = plot_token_localisation(maps, "t")
    assert len(figure.axes) == 6 * 5
    assert figure.axes[0].get_ylabel() == "block00/out\nup to 0.08\n100% at own place"
    assert figure.axes[-5].get_ylabel().startswith("block12/out\nup to 1.00")
    for axes in figure.axes[-5:]:
        (picture,), (frame,) = axes.images, axes.patches
        row, column = np.argwhere(picture.get_array() == 1)[0]
        assert frame.get_xy() == (column - 0.5, row - 0.5)
    assert frame.get_xy() == (4.5, 6.5)
