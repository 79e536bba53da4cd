"""One setting fills the size in wherever a preprocessing string leaves it open."""

import pytest

from vit_tf.data import Input, TFDSSource
from vit_tf.data.sized import fill_size

MARGIN = "decode|resize_small({size * 7 / 6})|central_crop({size})"


@pytest.mark.parametrize(
    ("ops", "size", "expected"),
    [
        (MARGIN, 384, "decode|resize_small(448)|central_crop(384)"),
        (MARGIN, (64, 96), "decode|resize_small((75, 112))|central_crop((64, 96))"),
        ("decode|resize({ size*5/4 })|flip_lr", 128, "decode|resize(160)|flip_lr"),
        ("decode|resize({size * 2})", 7, "decode|resize(14)"),
        ("decode|resize({size * 2})", (7, 7), "decode|resize(14)"),
        ("decode|resize(9)", 7, "decode|resize(9)"),
        ("decode|resize(9)", None, "decode|resize(9)"),
    ],
)
def test_every_size_is_filled_in(ops, size, expected):
    assert fill_size(ops, size) == expected


@pytest.mark.parametrize(
    ("ops", "size", "message"),
    [
        ("decode|resize({size})", None, "set Input.image_size"),
        ("decode|resize({sise})", 8, "neither {size} nor a multiple"),
        ("decode|resize({size * 0})", 8, "neither {size} nor a multiple"),
        ("decode|resize({size * 7 / 0})", 8, "neither {size} nor a multiple"),
        ("decode|resize({size})", (8, 9, 3), "positive int or"),
    ],
)
def test_what_cannot_be_filled_is_said(ops, size, message):
    with pytest.raises(ValueError, match=message):
        fill_size(ops, size)


def test_an_input_has_the_images_that_it_is_asked_for(digits_dir):
    source = TFDSSource(digits_dir, "test")
    for size, shape in ((12, (12, 12, 1)), ((6, 9), (6, 9, 1))):
        ops = "decode(1)|resize_small({size * 4 / 3})|central_crop({size})|value_range(-1, 1)"
        made = Input(source, ops, 4, training=False, image_size=size)
        assert made.image_shape == shape
