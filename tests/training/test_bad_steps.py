"""Bad steps are skipped without a trace, or end the run; so do losses that blow up."""

import functools

import keras
import numpy as np
import pytest
from stepping import Regression, Steps, batches, gradient

from vit_tf.training import BadSteps, Ema, RunConfig
from vit_tf.training.bad_steps import Watch
from vit_tf.training.strategies import create_strategy

ADAM = functools.partial(keras.optimizers.Adam, weight_decay=0.1)
SKIP = BadSteps(action="skip")


def broken(batch, row=0):
    """A batch with an example that is no number."""
    image = batch["image"].copy()
    image[row] = np.nan
    return {**batch, "image": image}


@pytest.mark.parametrize(
    ("strategy", "jit_compile"), [("cpu", False), ("cpu", True), ("mirrored", False)]
)
def test_a_skipped_step_changes_nothing_and_is_counted(strategy, jit_compile):
    settings = dict(optimizer=ADAM, ema=Ema(0.5), bad_steps=SKIP, jit_compile=jit_compile)
    steps = Steps(Regression(True), strategy, **settings)
    first, second, third = batches(3)
    steps.run(first)
    before = steps.state()
    steps.run(broken(second))  # of two replicas, only one sees it
    for value, old in zip(steps.state(), before, strict=True):
        np.testing.assert_array_equal(value, old)
    assert int(steps.step.number.numpy()) == 2  # it is a step all the same
    steps.run(third)
    assert all(np.isfinite(value).all() for value in steps.state())
    assert (steps.state()[0] != before[0]).any()
    means = steps.step.means()
    assert means["bad_steps"] == 1
    assert means["skipped_examples"] == 0
    assert np.isfinite(means["loss"]) and np.isfinite(means["gradient_norm"])
    counts = {name: int(steps.step.watch.variables[name].numpy()) for name in ("total", "longest")}
    assert counts == {"total": 1, "longest": 1}


def test_a_gradient_above_the_bound_is_skipped():
    norms = []
    kernel = Steps().model.get_weights()[0]
    for batch in batches(3):
        norms.append(np.linalg.norm(gradient(kernel, batch)))
    bound = sorted(norms)[1]  # all but the largest pass, as long as the kernel stays
    steps = Steps(rate=1e-6, bad_steps=BadSteps(action="skip", norm_above=float(bound) * 1.001))
    for batch in batches(3):
        steps.run(batch)
    assert steps.step.means()["bad_steps"] == 1
    assert steps.step.means()["gradient_norm"] == pytest.approx(np.mean(sorted(norms)[:2]), 1e-3)


def counted(bad_steps, pattern):
    """A watch that has seen good (g) and bad (b) steps."""
    strategy = create_strategy("cpu")
    watch = Watch(bad_steps, strategy)
    for step in pattern:
        loss = np.float32(1.0 if step == "g" else np.inf)
        assert bool(watch.judge(loss, np.float32(1.0))) == (step == "g")
    return watch


@pytest.mark.parametrize(
    ("pattern", "ends"), [("bgbgb", False), ("bgbgbgb", True), ("bbgg", False), ("gbbbg", True)]
)
def test_skipping_ends_after_so_many_in_all_or_in_a_row(pattern, ends):
    watch = counted(BadSteps(action="skip", most=3, most_in_a_row=2), pattern)
    values = {"loss": 1.0, "gradient_norm": 1.0, "bad_steps": pattern.count("b")}
    if not ends:
        return watch.check_steps(values, "here", str)
    message = rf"{pattern.count('b')} steps were bad .* BadSteps.most is 3 .*Lower the learning"
    with pytest.raises(FloatingPointError, match=message):
        watch.check_steps(values, "between steps 1 and 7", lambda: "No checkpoint was written.")


def test_stopping_tells_that_a_norm_exceeded_its_bound():
    watch = counted(BadSteps(norm_above=0.5), "")
    assert not watch.judge(np.float32(1.0), np.float32(0.6))
    values = {"loss": 1.0, "gradient_norm": 0.6, "bad_steps": 1}
    with pytest.raises(FloatingPointError, match=r"exceeded BadSteps\.norm_above = 0\.5 in 1"):
        watch.check_steps(values, "between steps 1 and 2", str)


def test_a_loss_above_the_bound_ends_the_run():
    watch = counted(BadSteps(loss_above=2.0), "")
    watch.check_loss(1.9, "here", str)
    message = r"mean loss between steps 3 and 4 blew up to 2\.1, above BadSteps\.loss_above = 2\. X"
    with pytest.raises(FloatingPointError, match=message):
        watch.check_loss(2.1, "between steps 3 and 4", lambda: "X")


def test_a_loss_far_above_the_smallest_smoothed_one_ends_the_run():
    watch = counted(BadSteps(loss_factor=2.0), "")
    watch.check_loss(4.0, "here", str)
    watch.check_loss(3.0, "here", str)  # smoothed 0.9 * 4 + 0.1 * 3 = 3.9
    watch.check_loss(7.7, "here", str)
    watch.check_loss(float("nan"), "here", str)  # a loop of skipped steps
    assert float(watch.variables["smallest_loss"].numpy()) == pytest.approx(3.9)
    with pytest.raises(FloatingPointError, match="loss_factor = 2 times the smallest .* 3.9"):
        watch.check_loss(7.9, "here", str)


def test_none_goes_on_regardless():
    steps = Steps(bad_steps=None)
    steps.run(broken(batches(1)[0]))
    assert np.isnan(steps.model.get_weights()[0]).all()
    assert "bad_steps" not in steps.step.means()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(action="go"), "BadSteps.action must be one of stop, skip; given 'go'"),
        (dict(norm_above=0), "BadSteps.norm_above must be positive or None; given 0"),
        (dict(loss_factor=1.0), "BadSteps.loss_factor must exceed 1; given 1.0"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        BadSteps(**settings)


def test_by_default_a_run_stops():
    assert RunConfig().bad_steps == BadSteps(action="stop")
