"""Attention maps over images."""

import io

import numpy as np
import pytest
from PIL import Image

from vit_tf.analysis.attention_overlay import attention_overlay, attention_picture

IMAGE = np.random.default_rng(0).integers(0, 256, [48, 64, 3], np.uint8)
CORNER = np.zeros([3, 4])
CORNER[2, 3] = 0.25


def test_the_most_attended_patch_is_the_brightest():
    gray = np.full([48, 64, 3], 128, np.uint8)
    brightness = attention_overlay(gray, CORNER).sum(axis=-1, dtype=int)
    row, column = np.unravel_index(brightness.argmax(), brightness.shape)
    assert row >= 32 and column >= 48
    assert brightness[-1, -1] > brightness[-9, -9] > brightness[0, 0]


def test_strength_goes_from_the_image_to_the_map():
    np.testing.assert_array_equal(attention_overlay(IMAGE, CORNER, strength=0), IMAGE)
    other = attention_overlay(255 - IMAGE, CORNER, strength=1)
    np.testing.assert_array_equal(attention_overlay(IMAGE, CORNER, strength=1), other)


def test_scale_and_offset_of_the_map_do_not_matter():
    expected = attention_overlay(IMAGE, CORNER)
    np.testing.assert_array_equal(attention_overlay(IMAGE, 7 * CORNER + 3), expected)


def test_a_map_that_is_the_same_everywhere_is_dark():
    dark = attention_overlay(IMAGE, np.full([2, 2], 0.3), strength=1)
    assert len(np.unique(dark.reshape(-1, 3), axis=0)) == 1
    assert dark.max() < 20


def test_the_picture_shows_the_image_and_beside_it_the_overlay():
    large = np.repeat(np.repeat(IMAGE, 10, axis=0), 10, axis=1)
    sheet = np.asarray(Image.open(io.BytesIO(attention_picture(large, CORNER))))
    np.testing.assert_array_equal(sheet[:, :640], large)
    np.testing.assert_array_equal(sheet[:, -640:], attention_overlay(large, CORNER))
    assert (sheet[:, 640:-640] == 255).all()


def test_a_small_image_is_enlarged_to_be_read():
    sheet = Image.open(io.BytesIO(attention_picture(IMAGE[:32, :32], CORNER)))
    assert sheet.height == 320 and sheet.width > 640


@pytest.mark.parametrize(
    ("image", "attention", "strength", "message"),
    [
        (IMAGE[..., :1], CORNER, 0.5, r"given \(48, 64, 1\) and \(3, 4\)"),
        (IMAGE, CORNER[0], 0.5, r"given \(48, 64, 3\) and \(4,\)"),
        (IMAGE, CORNER, 1.5, "between 0 and 1; given 1.5"),
    ],
)
def test_what_does_not_fit_is_named(image, attention, strength, message):
    with pytest.raises(ValueError, match=message):
        attention_overlay(image, attention, strength)
