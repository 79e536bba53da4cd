"""The least time that a program can take."""

import pytest

from vit_tf.compilation import CHIPS, roofline
from vit_tf.compilation.roofline import arithmetic_intensity


def test_time_is_the_larger_of_arithmetic_and_traffic():
    chip = CHIPS["v5e"]
    arithmetic = roofline(2 * chip.flops, chip.bandwidth, 100, "v5e")
    assert (arithmetic.seconds, arithmetic.bound_by) == (2.0, "compute")
    traffic = roofline(chip.flops, 4 * chip.bandwidth, 100, chip)
    assert (traffic.seconds, traffic.bound_by) == (4.0, "memory")
    assert traffic.images_per_second_per_chip == 25.0


def test_images_of_a_chip_are_those_of_both_its_cores():
    core = CHIPS["v3"]
    assert roofline(core.flops, 0.0, 8, core).images_per_second_per_chip == 16.0


def test_what_binds_changes_at_the_ridge():
    chip = CHIPS["v6e"]
    ridge = arithmetic_intensity(chip.flops, chip.bandwidth)
    assert roofline(1.01 * ridge, 1.0, 1, chip).bound_by == "compute"
    assert roofline(0.99 * ridge, 1.0, 1, chip).bound_by == "memory"


def test_an_empty_program_has_no_roofline():
    with pytest.raises(ValueError, match="no roofline"):
        roofline(0.0, 0.0, 1, "v2")
