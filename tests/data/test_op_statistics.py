"""What the random ops draw has the distribution of their references."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from draws import run_many

ALMOST_NEVER = 1e-4  # of a true claim's tests give a smaller p-value; the seeds are fixed


def uniform(low: float, high: float):
    return scipy.stats.uniform(low, high - low).cdf


def parts(height: int, width: int, seeds: int, op="inception_crop", **arguments) -> np.ndarray:
    """What a crop cuts out: `[seeds, 4]`, top, left, height, width."""
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    image = np.stack([y, x], -1).astype(np.float32)
    # The mean places of the part's four quarters tell its borders.
    quarters = run_many(
        op, 2, method="area", antialias=False, image=image, seeds=seeds, **arguments
    ).astype(np.float64)
    first, last = quarters[:, 0, 0], quarters[:, 1, 1]
    size = 2 * (last - first)
    start = (first + last) / 2 + 0.5 - size / 2
    found = np.concatenate([start, size], axis=1)
    np.testing.assert_allclose(found, found.round(), atol=0.1)  # quarters with half a pixel
    return found.round()


def test_flip_lr_flips_half_of_the_images():
    image = np.arange(2, dtype=np.uint8)[None, :, None]
    flipped = run_many("flip_lr", image=image, seeds=4000)[:, 0, 0, 0]
    assert scipy.stats.binomtest(int(flipped.sum()), 4000).pvalue > ALMOST_NEVER


def test_random_crop_takes_all_places_alike():
    image = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7, 1)
    corners = run_many("random_crop", (3, 4), image=image, seeds=4000)[:, 0, 0, 0]
    counts = np.bincount(corners, minlength=35).reshape(5, 7)
    assert counts[:3, :4].sum() == 4000
    assert scipy.stats.chisquare(counts[:3, :4].ravel()).pvalue > ALMOST_NEVER


def test_random_crop_padded_by_reflection_shows_windows_of_the_reflected_image():
    image = np.arange(4 * 5, dtype=np.uint8).reshape(4, 5, 1)
    padded = np.pad(image, [(2, 2), (2, 2), (0, 0)], mode="reflect")
    windows = {padded[y : y + 4, x : x + 4].tobytes() for y in range(5) for x in range(6)}
    crops = run_many("random_crop", 4, padding=2, padding_mode="reflect", image=image, seeds=1000)
    assert {crop.tobytes() for crop in crops} == windows
    with pytest.raises(ValueError, match="padding_mode must be zeros or reflect"):
        run_many("random_crop", 4, padding=2, padding_mode="mirror", image=image)


def test_inception_crop_draws_sides_and_places_uniformly():
    # With a fixed aspect, TensorFlow's sampler draws the side between those of the two areas.
    found = parts(200, 200, 3000, area_min=10, area_max=60, aspect_min=1, aspect_max=1)
    _, _, height, width = found.T
    np.testing.assert_array_equal(height, width)
    least, greatest = np.sqrt([0.1, 0.6]) * 200
    assert least <= height.min() < least + 2 and greatest - 2 < height.max() <= greatest
    side = height + np.random.default_rng(0).uniform(-0.5, 0.5, size=3000)
    assert scipy.stats.kstest(side, uniform(least, greatest)).pvalue > ALMOST_NEVER
    for start in found[:, :2].T:
        place = (start + np.random.default_rng(0).uniform(size=3000)) / (201 - height)
        assert scipy.stats.kstest(place, uniform(0, 1)).pvalue > ALMOST_NEVER


def test_inception_crop_draws_the_aspect_uniformly():
    found = parts(300, 400, 2000, area_min=15, area_max=25)
    aspect = found[:, 3] / found[:, 2]
    assert 0.74 < aspect.min() < 0.76 and 1.31 < aspect.max() < 1.35
    assert scipy.stats.kstest(aspect, uniform(3 / 4, 4 / 3)).pvalue > ALMOST_NEVER
    areas = found[:, 2] * found[:, 3] / (300 * 400)
    assert 0.148 < areas.min() < 0.155 and 0.245 < areas.max() < 0.252


@pytest.mark.parametrize("size", [(60, 200), (150, 100)])
def test_inception_crop_by_default_has_the_distribution_of_tensorflows_sampler(size):
    ours = parts(*size, 3000)

    @tf.function
    def reference(seed):
        begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
            [*size, 3],
            tf.zeros([0, 0, 4]),
            seed,
            min_object_covered=0.0,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.05, 1.0),
            use_image_if_no_bounding_boxes=True,
        )
        return tf.concat([begin[:2], extent[:2]], axis=0)

    dataset = tf.data.Dataset.range(3000).map(lambda i: reference(tf.stack([99, i])))
    theirs = next(dataset.batch(3000).as_numpy_iterator())
    for one, other in zip(ours.T, theirs.T, strict=True):
        assert scipy.stats.ks_2samp(one, other).pvalue > ALMOST_NEVER


def torchvision_part(rng, height, width, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
    """`RandomResizedCrop.get_params` of torchvision 0.20 (transforms/transforms.py), in NumPy."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return (
                rng.integers(0, height - h, endpoint=True),
                rng.integers(0, width - w, endpoint=True),
                h,
                w,
            )
    if width / height < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        h, w = height, round(height * ratio[1])
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


# The last is so long that ten tries often fail and the middle is taken.
@pytest.mark.parametrize("size", [(150, 100), (120, 160), (60, 400)])
def test_random_resized_crop_has_the_distribution_of_torchvisions_sampler(size):
    ours = parts(*size, 3000, op="random_resized_crop")
    rng = np.random.default_rng(3)
    theirs = np.array([torchvision_part(rng, *size) for _ in range(3000)])
    for one, other in zip(ours.T, theirs.T, strict=True):
        assert scipy.stats.ks_2samp(one, other).pvalue > ALMOST_NEVER
    middle = [
        (len(found), (found[:, 0] == 0) & (found[:, 2] == size[0]) & (found[:, 3] == 80))
        for found in (ours, theirs)
    ]
    if size == (60, 400):
        table = [[falls.sum(), total - falls.sum()] for total, falls in middle]
        assert table[1][0] > 100
        assert scipy.stats.fisher_exact(table).pvalue > ALMOST_NEVER


def test_random_resized_crop_that_never_fits_is_the_middle():
    for size, found in (((40, 400), (0, 173, 40, 53)), ((400, 40), (173, 0, 53, 40))):
        cut = parts(*size, 50, op="random_resized_crop", area_min=90)
        np.testing.assert_array_equal(cut, np.tile(found, (50, 1)))
    cut = parts(100, 100, 50, op="random_resized_crop", area_min=100, aspect_min=1.2)
    np.testing.assert_array_equal(cut, np.tile((8, 0, 83, 100), (50, 1)))


def test_random_erasing_draws_area_and_aspect_and_place_uniformly():
    image = np.full((300, 300, 1), 9, np.float32)
    erased = run_many("random_erasing", 1.0, "const", image=image, seeds=1000)[..., 0] == 0
    rows, columns = erased.any(axis=2), erased.any(axis=1)
    height, width = rows.sum(axis=1), columns.sum(axis=1)
    np.testing.assert_array_equal(erased.sum(axis=(1, 2)), height * width)
    area = height * width / 300**2
    # Boxes that do not fit are drawn again, hence less large areas of extreme aspect.
    assert scipy.stats.kstest(area[area < 0.25], uniform(0.02, 0.25)).pvalue > ALMOST_NEVER
    assert area.min() < 0.025 and 0.32 < area.max() < 0.335
    aspect = np.log(height / width)[area < 0.25]
    limit = np.log(1 / 0.3)
    assert scipy.stats.kstest(aspect, uniform(-limit, limit)).pvalue > ALMOST_NEVER
    for lines, side in ((rows, height), (columns, width)):
        place = (lines.argmax(axis=1) + np.random.default_rng(0).uniform(size=1000)) / (301 - side)
        assert scipy.stats.kstest(place, uniform(0, 1)).pvalue > ALMOST_NEVER


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.8])
def test_random_erasing_happens_as_often_as_asked(probability):
    image = np.full((9, 9, 1), 9, np.float32)
    erased = (run_many("random_erasing", probability, image=image, seeds=3000) != 9).any((1, 2, 3))
    assert scipy.stats.binomtest(int(erased.sum()), 3000, probability).pvalue > ALMOST_NEVER


@pytest.mark.parametrize(("strength", "low", "high"), [(0.4, 0.6, 1.4), (1.5, 0.0, 2.5)])
def test_color_jitter_draws_factors_uniformly(strength, low, high):
    image = np.full((1, 1, 3), 100, np.uint8)
    results = run_many("color_jitter", strength, 0, 0, image=image, seeds=3000)[:, 0, 0, 0]
    factors = (results + np.random.default_rng(0).uniform(size=3000)) / 100  # the fraction is cut
    assert scipy.stats.kstest(factors, uniform(low, high)).pvalue > ALMOST_NEVER
