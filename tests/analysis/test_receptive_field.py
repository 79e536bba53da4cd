"""Receptive fields against differences of outputs, and where they must be empty."""

import numpy as np
import pytest

from vit_tf import create_model, extract_features
from vit_tf.analysis.receptive_field import half_area, plot_receptive_fields, receptive_fields

TINY = {"width": 8, "depth": 2, "num_heads": 2, "mlp_dim": 8, "num_classes": 3}


@pytest.fixture(scope="module")
def vit():
    return create_model("vit", image_size=(16, 24), patch_size=8, num_registers=1, **TINY)


def random_images(model, count=3):
    pixels = np.random.default_rng(0).uniform(-1, 1, (count, *model.input_shape[1:]))
    return pixels.astype(np.float32)


def by_differences(model, images, layer, patch, pixels, step=1e-2):
    """Mean absolute slope of the sum of a patch's channels, at some pixels."""

    def outputs_at(row, column, color, change):
        moved = images.copy()
        moved[:, row, column, color] += change
        tokens = np.asarray(extract_features(model, moved, layer)[layer], np.float64)
        return tokens[:, 2 + patch].sum(axis=-1)  # behind class token and register

    slopes = [
        [outputs_at(*pixel, color, step) - outputs_at(*pixel, color, -step) for color in range(3)]
        for pixel in pixels
    ]  # [pixels, colors, images]
    return np.abs(slopes).mean(axis=(1, 2)) / (2 * step)


@pytest.mark.parametrize("layer", ["block00/out", "block01/out"])
def test_a_field_is_the_mean_slope_of_the_middle_patch(vit, layer):
    images = random_images(vit)
    found = receptive_fields(vit, images, [layer])[layer]
    pixels = [(3, 5), (9, 10), (15, 23)]
    expected = by_differences(vit, images, layer, patch=1 * 3 + 1, pixels=pixels)
    np.testing.assert_allclose([found[pixel] for pixel in pixels], expected, rtol=0.02)
    assert found.shape == (16, 24) and found.dtype == np.float32


def test_before_the_first_block_a_token_sees_its_patch_alone(vit):
    field = receptive_fields(vit, random_images(vit), ["tokens"], place=(0, 0.99))["tokens"]
    assert (field[:8, 16:] > 0).all()
    field[:8, 16:] = 0
    assert (field == 0).all()


def test_one_block_is_enough_to_see_all(vit):
    fields = receptive_fields(vit, random_images(vit))
    assert list(fields) == ["tokens", "block00/out", "block01/out"]
    assert (fields["block00/out"] > 0).all()


def test_the_first_convolution_sees_as_far_as_its_kernel():
    bit = create_model("bit", image_size=32, resnet_stages=(1,), resnet_width_factor=0.5)
    field = receptive_fields(bit, random_images(bit), ["root/conv"])["root/conv"]
    # 7x7 with stride 2 and 3 pixels of padding: cell 8 of 16 is centred on pixel 16.
    rows, columns = np.nonzero(field)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (13, 19, 13, 19)


def test_a_hybrid_has_fields_in_its_convolutions_and_its_blocks():
    stem = {"resnet_stages": (1,), "resnet_width_factor": 0.5, "patch_size": 1}
    hybrid = create_model("hybrid", image_size=16, **stem, **TINY)
    fields = receptive_fields(hybrid, random_images(hybrid))
    names = ["resnet/gn_root", "resnet/block1/unit1", "tokens", "block00/out", "block01/out"]
    assert list(fields) == names
    assert all(field.shape == (16, 16) and field.max() > 0 for field in fields.values())


def test_batches_do_not_matter(vit):
    images = random_images(vit)
    whole = receptive_fields(vit, images, ["block01/out"])["block01/out"]
    parts = receptive_fields(vit, images, ["block01/out"], batch_size=2)["block01/out"]
    np.testing.assert_allclose(parts, whole, rtol=1e-4)


def test_half_of_a_field_is_where_it_is_strongest():
    assert half_area(np.ones([10, 10])) == 0.5
    assert half_area(np.eye(10)) == 0.05
    assert half_area(np.float32([[8, 1], [1, 1]])) == 0.25


def test_what_has_no_place_or_patches_is_named(vit):
    images = random_images(vit)
    with pytest.raises(ValueError, match=r"less than 1, such as 0.5; got \(1, 0.5\)"):
        receptive_fields(vit, images, place=(1, 0.5))
    with pytest.raises(ValueError, match="'pre_logits' of the shape"):
        receptive_fields(vit, images, ["pre_logits"])
    with pytest.raises(ValueError, match="given 0 images"):
        receptive_fields(vit, images[:0])


def test_the_picture_has_a_row_a_model_and_spreads_deep_ones():
    deep = {f"block{n:02}/out": np.full([4, 4], n + 1.0) for n in range(13)}
    figure = plot_receptive_fields({"ViT": deep, "BiT": {"root/pool": np.eye(4)}}, "t")
    drawn = [axes for axes in figure.axes if axes.images]
    titles = [axes.get_title() for axes in drawn]
    assert titles[0] == "block00/out\nhalf in 50.0%"
    assert titles[6:] == ["block12/out\nhalf in 50.0%", "root/pool\nhalf in 12.5%"]
    assert [drawn[0].get_ylabel(), drawn[7].get_ylabel()] == ["ViT", "BiT"]
    np.testing.assert_array_equal(drawn[7].images[0].get_array(), np.eye(4))
