"""Durations in steps, epochs, examples and percent."""

import pytest

from vit_tf.training.run_length import RunLength

LENGTH = RunLength(steps=1000, batch_size=16, examples_per_epoch=328)


@pytest.mark.parametrize(
    "duration, steps",
    [
        (0, 0),
        (500, 500),
        ("500 steps", 500),
        ("1 step", 1),
        ("2 epochs", 41),
        ("0.25 epochs", 5),
        ("1 Epoch", 20),  # 20.5, rounded to even as Python does
        ("96 examples", 6),
        ("1_600 examples", 100),
        ("1e3 examples", 62),
        ("10%", 100),
        ("0.04 %", 1),
        ("1 example", 1),  # what is not nothing lasts a step at least
        ("0 epochs", 0),
    ],
)
def test_durations_in_steps(duration, steps):
    assert LENGTH.in_steps(duration) == steps


@pytest.mark.parametrize(
    "duration, message",
    [
        ("5 parsecs", "warmup must be a duration, as in 500, '500 steps'.*given '5 parsecs'"),
        ("epochs", "must be a duration"),
        ("5", "must be a duration"),
        (None, "must be a duration.*given None"),
        (True, "must be a duration"),
        (0.1, r"warmup must be a whole number of steps; given 0\.1.*'10%'"),
        ("1.5 steps", "must be a whole number of steps"),
        (-1, "warmup must not be negative or infinite; given -1"),
        ("-5 epochs", "must not be negative"),
        (float("nan"), "must not be negative or infinite"),
    ],
)
def test_what_is_no_duration(duration, message):
    with pytest.raises(ValueError, match=message):
        LENGTH.in_steps(duration, "warmup")


def test_units_that_need_facts_which_are_not_known():
    with pytest.raises(ValueError, match="warmup '5 epochs' needs an input that knows its size"):
        RunLength(100, batch_size=8).in_steps("5 epochs", "warmup")
    with pytest.raises(ValueError, match="cooldown '96 examples' needs the batch size"):
        RunLength(100).in_steps("96 examples", "cooldown")
    assert RunLength(100).in_steps("10%") == 10
    assert RunLength(100, batch_size=8).in_steps("96 examples") == 12


def test_a_run_without_steps_is_an_error():
    with pytest.raises(ValueError, match=r"RunLength\.steps must be positive; given 0"):
        RunLength(0)
