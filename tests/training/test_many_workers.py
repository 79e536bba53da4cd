"""Several processes on loopback train to the parameters that one process gets."""

import json

import numpy as np
import pytest
from forked import Run, run_workers, worker_environments
from processes import rows, tensors

pytestmark = pytest.mark.slow

STEPS = 12
SETTINGS = [
    f"RunConfig.steps = {STEPS}",
    "RunConfig.steps_per_loop = 4",
    f"RunConfig.eval_interval = {STEPS}",
    # Replicas draw masks of their own, so only without dropout are the numbers comparable.
    "create_model.dropout = 0.0",
    "create_model.stochastic_depth = 0.0",
    # Adam divides by the gradient's size, which makes much of rounding where there is none.
    "Optimization.optimizer = @MomentumSGD",
    "Optimization.learning_rate = 0.02",
]


@pytest.fixture(scope="module")
def one(digits_dir, tmp_path_factory):
    """The run of one process with the same global batch."""
    model_dir = tmp_path_factory.mktemp("one") / "run"
    Run(model_dir, digits_dir, *SETTINGS).end()
    return model_dir


def weights(model_dir) -> dict[str, np.ndarray]:
    return {name: v for name, v in tensors(model_dir, STEPS).items() if name.startswith("model/")}


def assert_close(one, other, atol):
    """Asserts that weights lie as close as that, having moved 100 times as far from 0."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value, rtol=0, atol=atol, err_msg=name)
    assert np.abs(head(one)).max() > 100 * atol
    for row, expected in zip(rows(other), rows(one), strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], abs=100 * atol)


def head(model_dir) -> np.ndarray:
    """Kernel of the head, which begins at zero."""
    return next(v for name, v in weights(model_dir).items() if "head" in name and v.ndim == 2)


@pytest.mark.parametrize("count", [2, 4])
def test_workers_learn_what_one_process_learns(one, digits_dir, tmp_path, count):
    chief, *others = run_workers(count, tmp_path / "run", digits_dir, *SETTINGS)
    assert f"128 = {count} replicas x {128 // count}" in chief
    assert all("loss" not in output for output in others)
    assert_close(one, tmp_path / "run", atol=1e-6)


def test_workers_that_sum_gradients_in_bfloat16_learn_nearly_the_same(one, digits_dir, tmp_path):
    setting = "RunConfig.all_reduce_dtype = 'bfloat16'"
    run_workers(2, tmp_path / "run", digits_dir, *SETTINGS, setting)
    assert_close(one, tmp_path / "run", atol=1e-4)
    assert np.abs(head(one) - head(tmp_path / "run")).max() > 1e-6


def test_a_worker_with_another_binding_is_named_by_all(digits_dir, tmp_path):
    environments = worker_environments(2)
    addresses = json.loads(environments[0]["TF_CONFIG"])["cluster"]["worker"]
    runs = [
        Run(
            tmp_path / "run",
            digits_dir,
            *SETTINGS,
            "RunConfig.strategy = 'multi_worker'",
            f"create_model.depth = {depth}",
            env=environment,
        )
        for depth, environment in zip((2, 3), environments, strict=True)
    ]
    differs = f"{addresses[1]}: not the gin files and bindings of the chief {addresses[0]}"
    assert all(differs in run.end(status=1) for run in runs)
    assert not (tmp_path / "run").exists()
