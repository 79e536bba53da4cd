"""`crop_ratio`: the evaluation of timm, torchvision and DeiT, against Pillow; and the cards."""

import math

import numpy as np
import pytest
import tensorflow as tf
import tiny_records
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from vit_tf.data import Preprocess
from vit_tf.data.op_registry import get_op
from vit_tf.models import Preprocessing


def smooth_image(height: int, width: int) -> np.ndarray:
    """An image in which Pillow, which clips to 8 bits between its two passes, clips nothing."""
    coarse = Image.fromarray(tiny_records.pixels(0, 5, 6) // 2 + 64)
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def run(image: np.ndarray, *args, **kwargs) -> np.ndarray:
    function = get_op("crop_ratio").make(*args, **kwargs)
    return function({"image": tf.constant(image)})["image"].numpy()


def torchvision_evaluation(image: np.ndarray, size: int, ratio: float) -> np.ndarray:
    """What Resize(int(size / ratio), BICUBIC) and CenterCrop(size) do to a Pillow image."""
    pillow, short = Image.fromarray(image), math.floor(size / ratio)
    width, height = pillow.size
    if width <= height:
        new = (short, int(short * height / width))
    else:
        new = (int(short * width / height), short)
    pillow = pillow.resize(new, Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2.0) for side in new)
    return np.asarray(pillow.crop((left, top, left + size, top + size)))


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(4, 24),
    ratio=st.sampled_from([0.5, 0.875, 0.9, 0.95, 1.0]),
    sides=st.tuples(st.integers(8, 60), st.integers(8, 60)),
)
@example(size=8, ratio=0.9, sides=(20, 31))
@example(size=24, ratio=0.875, sides=(60, 41))
def test_crop_ratio_is_torchvisions_evaluation_of_pillow_images(size, ratio, sides):
    image = smooth_image(*sides)
    expected = torchvision_evaluation(image, size, ratio).astype(int)
    result = run(image, size, ratio)
    assert result.dtype == np.uint8
    assert np.abs(result - expected).max() <= 1


def test_halves_and_fractions_of_a_pixel_go_where_torchvision_puts_them():
    # 30 x 43 becomes 20 x 28 (28.67 cut off); 18 pixels too wide gives 9, 15 too wide gives 8.
    image = np.broadcast_to(np.arange(43, dtype=np.float32)[:, None], (30, 43, 1))
    for size, left in ((10, 9), (13, 8)):
        result = run(image, size, ratio=size / 20, method="bilinear", antialias=False)[0, :, 0]
        np.testing.assert_allclose(result, (np.arange(size) + left + 0.5) * 43 / 28 - 0.5, 1e-4)


def test_a_size_that_is_not_square_is_covered():
    for sides in ((40, 100), (90, 30), (24, 32), (10, 10)):
        image = smooth_image(*sides)
        result = run(image, (12, 16), 0.5)
        scale = max(24 / sides[0], 32 / sides[1])
        new = [
            max(int(side * scale + 1e-9), least)
            for side, least in zip(sides, (24, 32), strict=True)
        ]
        pillow = Image.fromarray(image).resize(new[::-1], Image.Resampling.BICUBIC)
        top, left = (round((side - kept) / 2) for side, kept in zip(new, (12, 16), strict=True))
        expected = np.asarray(pillow.crop((left, top, left + 16, top + 12))).astype(int)
        assert np.abs(result - expected).max() <= 1, sides


def test_squash_loses_nothing_at_ratio_1():
    image = smooth_image(40, 30)
    whole = get_op("resize").make(12, 16, method="bicubic", antialias=True)
    expected = whole({"image": tf.constant(image)})["image"]
    np.testing.assert_array_equal(run(image, (12, 16), 1.0, mode="squash"), expected)
    stretched = get_op("resize").make(24, 32, method="bicubic", antialias=True)
    expected = stretched({"image": tf.constant(image)})["image"][6:18, 8:24]
    np.testing.assert_array_equal(run(image, (12, 16), 0.5, mode="squash"), expected)


def test_big_visions_spelling_is_the_same_where_nothing_is_rounded():
    image = smooth_image(64, 96)
    spelled = Preprocess(
        "decode|resize_small(32, method='bicubic', antialias=True)|central_crop(28)"
    )
    named = Preprocess("decode|crop_ratio(28)")
    assert named.image_shape == (28, 28, 3)
    np.testing.assert_array_equal(named.image_from_pixels(image), spelled.image_from_pixels(image))


@pytest.mark.parametrize("ratio", [0.9, 1.0])
def test_a_card_with_a_crop_ratio_is_torchvisions_evaluation(ratio):
    facts = Preprocessing(
        (20, 20), value_range=(0, 255), crop_ratio=ratio, interpolation="bicubic", antialias=True
    )
    image = smooth_image(60, 41)
    result = Preprocess(facts.ops).image_from_pixels(image)
    assert np.abs(result - torchvision_evaluation(image, 20, ratio)).max() <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 8, "ratio": 1.5}, r"ratio must be in \(0, 1\], got 1.5"),
        ({"size": 8, "ratio": 0}, r"ratio must be in \(0, 1\], got 0"),
        ({"size": 8, "mode": "border"}, "mode must be one of center, squash, got 'border'"),
        ({"size": 8, "method": "cubic"}, "method must be one of area, bicubic, .* got 'cubic'"),
        ({"size": 0}, "size must be a positive int or"),
        ({"size": (8, 8, 8)}, "size must be a positive int or"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        get_op("crop_ratio").make(**arguments)
