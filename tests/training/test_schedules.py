"""Schedules against values of the reference implementations, and what does not fit a run."""

import functools
import json

import keras
import numpy as np
import pytest

from vit_tf.training import schedules
from vit_tf.training.optimization import Optimization
from vit_tf.training.run_length import RunLength

LENGTH = RunLength(steps=30, batch_size=16, examples_per_epoch=320)

BIG_VISION = {
    "cosine_warmup5": functools.partial(schedules.cosine, warmup=5),
    "cosine_percent": functools.partial(schedules.cosine, warmup="10%"),
    "linear_warmup4_end": functools.partial(schedules.linear, warmup=4, final=0.1),
    "polynomial2": functools.partial(schedules.polynomial, power=2, warmup=3),
    "rsqrt_warmup5_cooldown8": functools.partial(
        schedules.rsqrt, timescale=10, warmup=5, cooldown=8
    ),
    "rsqrt_shift_epochs": functools.partial(
        schedules.rsqrt, timescale=6, shift=4, warmup="0.25 epochs", cooldown="96 examples"
    ),
    "stair": functools.partial(
        schedules.staircase, boundaries=(10, 20), factors=(0.1, 0.01), warmup=3
    ),
}
FINE_TUNE = {
    "cosine": (0.03, functools.partial(schedules.cosine, warmup=5)),
    # The reference's line ends at 1e-5 unless told otherwise.
    "linear": (0.03, functools.partial(schedules.linear, warmup=5, final=1e-5 / 0.03)),
    "linear_end_nowarm": (0.01, functools.partial(schedules.linear, final=0.1)),
}


def golden(shared, case):
    folder = shared / "golden" / "behaviour" / case
    tolerance = json.loads((folder / "meta.json").read_text())["tolerance"]
    return np.load(folder / "io.npz"), tolerance


def rates(schedule, count) -> np.ndarray:
    return np.array([float(schedule(step)) for step in range(count)])


def used(length=LENGTH, **settings) -> np.ndarray:
    """The rates that an optimizer gets in a run."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer = Optimization(keras.optimizers.SGD, **settings).build(model, length)
    found = []
    for step in range(length.steps):
        optimizer.iterations.assign(step)
        found.append(float(optimizer.learning_rate))
    return np.array(found)


@pytest.mark.parametrize("name", BIG_VISION)
def test_big_vision_schedules(shared, name):
    stored, tolerance = golden(shared, "schedules_big_vision")
    values = stored[f"{name}/value"]
    np.testing.assert_allclose(rates(BIG_VISION[name](LENGTH), len(values)), values, **tolerance)


def test_a_rate_that_grows_with_the_batch(shared):
    stored, tolerance = golden(shared, "schedules_big_vision")
    # big_vision's reference is a batch of 256.
    found = used(
        RunLength(30, batch_size=1024),
        learning_rate=0.002,
        reference_batch=256,
        schedule=BIG_VISION["cosine_warmup5"],
    )
    np.testing.assert_allclose(found, stored["cosine_batch_scaled/value"], **tolerance)


@pytest.mark.parametrize("name", FINE_TUNE)
def test_vision_transformer_schedules(shared, name):
    stored, tolerance = golden(shared, "schedules_fine_tune")
    base, schedule = FINE_TUNE[name]
    values = stored[f"{name}/value"]
    np.testing.assert_allclose(base * rates(schedule(LENGTH), 31), values, **tolerance)


@pytest.mark.parametrize("name", ["train_30", "train_300", "fine_tune_30"])
@pytest.mark.parametrize("late", [False, True])
def test_deit_schedules(shared, name, late):
    stored, tolerance = golden(shared, "schedules_deit")
    config = json.loads((shared / "golden/behaviour/schedules_deit/meta.json").read_text())
    config = config["config"]["schedules"][name]
    values = stored[f"{name}/{'used_in_epoch' if late else 'value'}"]
    per_epoch, peak = 3, config["lr"]
    # The reference never runs its cool-down epochs; its function goes on with the last rate.
    cooldown = 0 if late else config["cooldown_epochs"]
    assert len(values) == config["epochs"] + cooldown
    schedule = schedules.epoch_cosine(
        RunLength(len(values) * per_epoch, 16, 16 * per_epoch),
        warmup=f"{config['warmup_epochs']} epochs",
        cooldown=f"{cooldown} epochs",
        final=config["min_lr"] / peak,
        warmup_start=config["warmup_lr"] / peak,
        one_epoch_late=late,
    )
    found = peak * np.asarray(schedule(np.arange(len(values) * per_epoch)), np.float64)
    np.testing.assert_allclose(found, np.repeat(values, per_epoch), **tolerance)


def test_epochs_that_are_no_whole_number_of_steps_change_where_they_begin():
    length = RunLength(steps=10, batch_size=4, examples_per_epoch=10)  # 2.5 steps an epoch
    found = rates(schedules.epoch_cosine(length), 10)
    cosine = (1 + np.cos(np.pi * np.arange(4) / 4)) / 2
    np.testing.assert_allclose(found, cosine[[0, 0, 0, 1, 1, 2, 2, 2, 3, 3]], rtol=1e-6)


@pytest.mark.parametrize("name", ["constant", "linear", "polynomial", "cosine", "rsqrt"])
def test_every_schedule_warms_up_and_cools_down(name):
    make = getattr(schedules, name)
    plain = rates(make(LENGTH, warmup=4), 31)
    found = rates(make(LENGTH, warmup=4, cooldown="20%", warmup_start=0.1, final=0.0), 31)
    rise = 0.1 + (plain[4] - 0.1) * np.arange(5) / 4
    np.testing.assert_allclose(found[:5], rise, rtol=1e-6)
    np.testing.assert_allclose(found[5:25], plain[5:25], rtol=1e-6)
    np.testing.assert_allclose(found[25:], plain[25:] * np.arange(5, -1, -1) / 6, atol=1e-7)


def test_a_cool_down_ends_at_the_final_rate():
    found = rates(schedules.constant(LENGTH, cooldown=10, final=0.2), 33)
    np.testing.assert_allclose(found[:21], 1.0)
    np.testing.assert_allclose(found[30:], 0.2)
    np.testing.assert_allclose(found[25], 0.6)


def test_the_last_rates_of_a_long_cosine_keep_their_digits():
    steps = 1_000_000
    schedule = schedules.cosine(RunLength(steps), warmup=10_000)
    at = np.array([999_000, 999_990, 999_999])
    exact = np.sin(np.pi / 2 * (steps - at) / (steps - 10_000)) ** 2
    np.testing.assert_allclose(np.asarray(schedule(at)), exact, rtol=1e-6)


def test_a_keras_schedule_or_a_number_takes_the_place_of_ours():
    own = keras.optimizers.schedules.ExponentialDecay(1.0, decay_steps=1, decay_rate=0.5)
    np.testing.assert_allclose(
        used(RunLength(3), schedule=own, learning_rate=0.2), [0.2, 0.1, 0.05]
    )
    np.testing.assert_allclose(used(RunLength(2), schedule=0.5, learning_rate=0.2), [0.1, 0.1])
    per_run = used(RunLength(2), schedule=lambda length: 1 / length.steps, learning_rate=0.2)
    np.testing.assert_allclose(per_run, [0.1, 0.1])
    with pytest.raises(TypeError, match="schedule must be a Keras LearningRateSchedule, a number"):
        used(schedule="cosine")


def test_schedules_are_kept_and_read_again_as_keras_does():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    schedule = functools.partial(
        schedules.staircase, boundaries=(10, 20), factors=(0.1, 0.01), warmup=3
    )
    optimizer = Optimization(keras.optimizers.SGD, 0.5, schedule).build(model, LENGTH)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    again.iterations.assign(12)
    assert float(again.learning_rate) == pytest.approx(0.05)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: schedules.cosine(LENGTH, warmup=20, cooldown="50%"),
            r"a warm-up of 20 steps \(20\) and a cool-down of 15 \('50%'\) do not fit a run of 30",
        ),
        (lambda: schedules.linear(LENGTH, warmup=30), "a warm-up of 30 .* do not fit a run of 30"),
        (lambda: schedules.cosine(LENGTH, warmup="5 eras"), "warmup must be a duration"),
        (
            lambda: schedules.cosine(RunLength(9, 3), warmup="1 epoch"),
            "needs an input that knows",
        ),
        (lambda: schedules.epoch_cosine(RunLength(9)), "epoch_cosine, which counts epochs"),
        (lambda: schedules.cosine(LENGTH, final=-0.1), "final must not be negative"),
        (lambda: schedules.rsqrt(LENGTH, timescale=0), "timescale must be positive; given 0"),
        (
            lambda: schedules.staircase(LENGTH, boundaries=(20, 10), factors=(0.1, 0.01)),
            "staircase needs rising boundaries and a factor for each",
        ),
        (lambda: schedules.staircase(LENGTH, boundaries=(5,)), "and a factor for each"),
    ],
)
def test_what_does_not_fit_a_run(make, message):
    with pytest.raises(ValueError, match=message):
        make()
