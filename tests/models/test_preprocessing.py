"""The string of operations that a model's input facts amount to."""

import dataclasses

import pytest

from vit_tf.models import Preprocessing


@pytest.mark.parametrize(
    ("facts", "ops"),
    [
        ({}, "decode|resize(224)|value_range(-1,1)"),
        ({"value_range": (0, 1)}, "decode|resize(224)|value_range(0,1)"),
        ({"image_size": (64, 96)}, "decode|resize(64,96)|value_range(-1,1)"),
        ({"channels": 1}, "decode(1)|resize(224)|value_range(-1,1)"),
        (
            {"interpolation": "bicubic"},
            'decode|resize(224, method="bicubic")|value_range(-1,1)',
        ),
        (
            {"crop_ratio": 0.875, "interpolation": "bicubic", "antialias": True},
            "decode|crop_ratio(224, 0.875)|value_range(-1,1)",
        ),
        (
            {"crop_ratio": 1.0},
            'decode|crop_ratio(224, 1.0, method="bilinear", antialias=False)|value_range(-1,1)',
        ),
        (
            {"crop_ratio": 0.5, "image_size": (64, 96), "interpolation": "bicubic"},
            "decode|crop_ratio((64,96), 0.5, antialias=False)|value_range(-1,1)",
        ),
        ({"antialias": True}, "decode|resize(224, antialias=True)|value_range(-1,1)"),
        (
            {"mean": (0.5, 0.25, 0.5), "std": (0.2, 0.2, 0.1)},
            "decode|resize(224)|standardize((0.5, 0.25, 0.5), (0.2, 0.2, 0.1))",
        ),
    ],
)
def test_ops(facts, ops):
    assert Preprocessing(**{"image_size": (224, 224), **facts}).ops == ops


def test_survives_json():
    facts = Preprocessing((8, 8), mean=(0.5,), std=(0.1,), channels=1)
    lists = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in dataclasses.asdict(facts).items()
    }
    assert Preprocessing(**lists) == facts


def test_mean_without_std_is_an_error():
    with pytest.raises(ValueError, match="needs both mean and std"):
        Preprocessing((8, 8), mean=(0.5, 0.5, 0.5))


def test_crop_ratio_outside_its_range_is_an_error():
    with pytest.raises(ValueError, match=r"crop_ratio must lie in \(0, 1\], got 1.5"):
        Preprocessing((8, 8), crop_ratio=1.5)
