"""The type that gradients are summed over replicas in."""

import numpy as np
import pytest
import tensorflow as tf
from stepping import Steps, batches

from vit_tf.training import BadSteps, RunConfig
from vit_tf.training.gradients import sum_over_replicas
from vit_tf.training.strategies import create_strategy

BF16_ROUNDING = 2.0**-8  # relative, of one rounding to nearest


def summed_types(steps: Steps) -> set[tf.DType]:
    """Types of what replicas send of the model's only weight [3, 1], as the step's graph has it."""
    (batch,) = batches(1)
    steps.run(batch)
    (graph,) = steps._run._list_all_concrete_functions()
    sums = [op.outputs[0] for op in graph.graph.get_operations() if op.type == "CollectiveReduceV2"]
    return {total.dtype for total in sums if total.shape == [3]}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", None])
def test_replicas_send_each_other_gradients_of_that_type_alone(dtype):
    steps = Steps(strategy="mirrored", all_reduce_dtype=dtype)
    assert summed_types(steps) == {tf.as_dtype(dtype or "float32")}
    assert {v.dtype for v in steps.model.weights} == {"float32"}


ALL = {"accumulation_steps": 2, "sam_rho": 0.5, "bad_steps": BadSteps("skip")}


@pytest.mark.parametrize("settings", [{}, ALL], ids=["plain", "with all that sums gradients"])
def test_a_sum_in_bfloat16_is_off_by_its_rounding_and_no_more(settings):
    exact = Steps(strategy="mirrored", **settings)
    rounded = Steps(strategy="mirrored", all_reduce_dtype="bfloat16", **settings)
    for batch in batches(3):
        (before,) = exact.model.get_weights()
        (weight,) = exact.run(batch)
        (other,) = rounded.run(batch)
        change = np.abs(weight - before).max()
        # Three roundings (each share, the sum) of a step, and those of the steps before.
        np.testing.assert_allclose(
            other, weight, rtol=0, atol=12 * BF16_ROUNDING * max(change, 0.1)
        )
    assert np.abs(other - weight).max() > 0
    assert not np.array_equal(other, other.astype(tf.bfloat16.as_numpy_dtype).astype(np.float32))


def test_one_replica_rounds_nothing():
    exact, other = Steps(), Steps(all_reduce_dtype="bfloat16")
    for batch in batches(2):
        np.testing.assert_array_equal(exact.run(batch)[0], other.run(batch)[0])


def test_a_gradient_that_is_no_number_stays_none_and_its_step_is_skipped():
    steps = Steps(strategy="mirrored", all_reduce_dtype="bfloat16", bad_steps=BadSteps("skip"))
    (batch,) = batches(1)
    before = steps.model.get_weights()[0]
    batch["label"][0] = np.nan
    np.testing.assert_array_equal(steps.run(batch)[0], before)
    assert steps.step.means()["bad_steps"] == 1


def test_losses_are_summed_as_they_are():
    exact = Steps(strategy="mirrored")
    rounded = Steps(strategy="mirrored", all_reduce_dtype="bfloat16")
    (batch,) = batches(1)
    exact.run(batch)
    rounded.run(batch)
    assert rounded.step.means()["loss"] == exact.step.means()["loss"]


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float32"])
def test_sums_come_back_in_the_type_of_each_gradient(dtype):
    strategy = create_strategy("mirrored")
    types = (tf.float32, tf.bfloat16)  # those of bfloat16 training, whose head is float32

    @tf.function
    def run():
        def of_replica():
            return sum_over_replicas([tf.constant([1.0, 2.0], t) for t in types], dtype)

        return strategy.run(of_replica)

    for total, type_ in zip(run(), types, strict=True):
        local = strategy.experimental_local_results(total)[0]
        assert local.dtype == type_ and local.numpy().tolist() == [2.0, 4.0]


def test_an_unknown_type_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match="all_reduce_dtype must be one of bfloat16, float32 or N"):
        RunConfig(all_reduce_dtype="float16")
