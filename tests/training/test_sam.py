"""Sharpness-aware minimisation against its equations, written down in NumPy."""

import numpy as np
import pytest
from stepping import Steps, batches, gradient


def sam_steps(kernel, count, rho=0.5, rate=0.1):
    """Foret et al. 2021, eq. 2 and algorithm 1: the gradient at w + rho * g / |g|, in float64."""
    kernel = kernel.astype(np.float64)
    for batch in batches(count):
        ascent = gradient(kernel, batch)
        ascent *= rho / np.linalg.norm(ascent)
        kernel = kernel - rate * gradient(kernel + ascent, batch)
    return kernel


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("cpu", {}),
        ("cpu", {"jit_compile": True, "accumulation_steps": 2}),
        ("mirrored", {"accumulation_steps": 2}),
        ("mirrored", {"jit_compile": True}),
    ],
)
def test_a_step_descends_by_the_gradient_of_the_sharpest_point_nearby(strategy, settings):
    steps = Steps(strategy=strategy, sam_rho=0.5, **settings)
    expected = sam_steps(steps.model.get_weights()[0], 3)
    plain = Steps()
    for batch in batches(3):
        (kernel,) = steps.run(batch)
        (without,) = plain.run(batch)
    np.testing.assert_allclose(kernel, expected, rtol=0, atol=1e-5)
    assert np.abs(kernel - without).max() > 1e-3


def test_the_loss_that_is_logged_is_that_of_the_weights_themselves():
    steps, plain = Steps(sam_rho=0.5), Steps()
    (batch,) = batches(1)
    steps.run(batch)
    plain.run(batch)
    assert steps.step.means()["loss"] == plain.step.means()["loss"]


def test_a_gradient_of_zero_moves_nothing():
    steps = Steps(sam_rho=0.5)
    before = steps.model.get_weights()[0]
    (batch,) = batches(1)
    (after,) = steps.run({**batch, "mask": np.zeros_like(batch["mask"])})
    np.testing.assert_array_equal(after, before)
