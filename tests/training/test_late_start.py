"""Head first, then everything: what is held does not move in any way, and then begins afresh."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import assert_same_run
from stepping import BATCH

from vit_tf.training import Ema, Estimator, Optimization, RunConfig, optimizers
from vit_tf.training.run_length import RunLength
from vit_tf.training.schedules import constant
from vit_tf.training.step import TrainStep
from vit_tf.training.strategies import create_strategy
from vit_tf.training.tasks import Task

HEAD_FIRST = ((r"head/.*", True), (".*", 3))
OPTIMIZERS = {
    "AdamW": keras.optimizers.AdamW,
    "SGD": functools.partial(keras.optimizers.SGD, momentum=0.9),
    "MomentumSGD": optimizers.MomentumSGD,
    "LowMemoryAdam": optimizers.LowMemoryAdam,
    "LAMB": optimizers.LAMB,
    "LARS": optimizers.LARS,
    "ScalingAdafactor": optimizers.ScalingAdafactor,
    "Lion": keras.optimizers.Lion,
}


class TwoLayers(Task):
    """A linear body of 3 and a linear head; the square error, halved."""

    metric = "loss"

    def build_model(self):
        keras.utils.set_random_seed(0)
        body = keras.layers.Dense(3, use_bias=False, name="body")
        head = keras.layers.Dense(1, use_bias=False, name="head")
        return keras.Sequential([keras.Input([3]), body, head])

    def train_values(self, model, batch):
        return {"loss": 0.5 * (model(batch["image"], training=True)[:, 0] - batch["label"]) ** 2}

    def eval_values(self, model, batch):
        raise NotImplementedError

    def predict_values(self, model, images):
        raise NotImplementedError


def batch(number):
    generator = np.random.default_rng(number)
    return {
        "image": generator.normal(size=(BATCH, 3)).astype(np.float32),
        "label": generator.normal(size=BATCH).astype(np.float32),
        "mask": np.ones(BATCH, np.float32),
    }


class Run:
    """Training steps of the two layers, `take(first, last)`, and all that they leave."""

    def __init__(self, table, optimizer, strategy="cpu", clip=0.05, sam_rho=None, **config):
        self.strategy, task = create_strategy(strategy), TwoLayers()
        decaying = functools.partial(optimizer, weight_decay=0.3)
        optimization = Optimization(
            decaying, 0.1, constant, clip_norm=clip, trainable_table=table, sam_rho=sam_rho
        )
        with self.strategy.scope():
            self.model = task.build_model()
            self.optimizer = optimization.build(self.model, RunLength(10))
        config = RunConfig(optimization=optimization, **config)
        self.step = TrainStep(task, self.model, config, self.strategy, BATCH)
        self.body, self.head = self.model.weights
        self._run = tf.function(lambda shares: self.strategy.run(self.step, args=(shares,)))

    def take(self, first, last):
        share = BATCH // self.strategy.num_replicas_in_sync
        for number in range(first, last):
            whole = batch(number)

            def of_replica(context, whole=whole):
                start = context.replica_id_in_sync_group * share
                return {n: tf.constant(v[start : start + share]) for n, v in whole.items()}

            self._run(self.strategy.experimental_distribute_values_from_function(of_replica))

    def slots(self, weight):
        """The optimizer's state of a weight, by what stands in its path."""
        name = weight.path.replace("/", "_")
        return [v.numpy() for v in self.optimizer.variables if name in v.path]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_held_has_neither_update_nor_decay_nor_state(name):
    run = Run(HEAD_FIRST, OPTIMIZERS[name])
    body, head, state = run.body.numpy(), run.head.numpy(), run.slots(run.body)
    run.take(0, 3)
    np.testing.assert_array_equal(run.body.numpy(), body)
    assert len(state) > 0
    for before, after in zip(state, run.slots(run.body), strict=True):
        np.testing.assert_array_equal(before, after)
    assert np.all(run.head.numpy() != head)
    run.take(3, 4)
    assert np.all(run.body.numpy() != body)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_phase_is_a_run_with_the_rest_frozen(name):
    held, frozen = (
        Run(HEAD_FIRST, OPTIMIZERS[name]),
        Run(((r"head/.*", True), (".*", False)), OPTIMIZERS[name]),
    )
    held.take(0, 3)
    frozen.take(0, 3)
    # The same clipping too: a held weight's gradient is not in the global norm.
    np.testing.assert_allclose(held.head.numpy(), frozen.head.numpy(), rtol=1e-6, atol=1e-7)
    assert held.step.means()["gradient_norm"] == pytest.approx(
        frozen.step.means()["gradient_norm"], rel=1e-6
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_begins_late_is_updated_as_by_a_new_optimizer(name):
    late = Run(HEAD_FIRST, OPTIMIZERS[name], clip=None)
    late.take(0, 3)
    fresh = Run(((".*", True),), OPTIMIZERS[name], clip=None)
    fresh.model.set_weights(late.model.get_weights())
    # The gradients of the second step depend on the head's, whose moments are not new.
    late.take(3, 4)
    fresh.take(3, 4)
    np.testing.assert_allclose(late.body.numpy(), fresh.body.numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "config", [{"strategy": "mirrored"}, {"jit_compile": True}, {"sam_rho": 0.05}]
)
def test_replicas_compilation_and_sam_hold_the_same(config):
    run = Run(HEAD_FIRST, OPTIMIZERS["AdamW"], **config)
    body = run.body.numpy()
    run.take(0, 3)
    np.testing.assert_array_equal(run.body.numpy(), body)
    if "sam_rho" not in config:
        plain = Run(HEAD_FIRST, OPTIMIZERS["AdamW"])
        plain.take(0, 5)
        run.take(3, 5)
        for one, other in zip(plain.model.get_weights(), run.model.get_weights(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    else:
        run.take(3, 4)
        assert np.all(run.body.numpy() != body)
    assert run.step.num_traces == run.strategy.num_replicas_in_sync  # one trace


def test_sam_climbs_by_what_has_begun():
    held = Run(HEAD_FIRST, OPTIMIZERS["SGD"], clip=None, sam_rho=0.5)
    frozen = Run(((r"head/.*", True), (".*", False)), OPTIMIZERS["SGD"], clip=None, sam_rho=0.5)
    held.take(0, 2)
    frozen.take(0, 2)
    np.testing.assert_allclose(held.head.numpy(), frozen.head.numpy(), rtol=1e-5, atol=1e-6)


def test_a_duration_counts_from_the_runs_start():
    optimization = Optimization(trainable_table=(("head/.*", True), (".*", "30%")))
    optimization.build(TwoLayers().build_model(), RunLength(10))
    assert "30%   .*" in optimization.describe()
    assert set(optimization.learning_rates()) == {"rest"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (((".*", 3),), "trains nothing before step 3"),
        ((("head/.*", True), (".*", "100%")), "begins at step 10 .'100%'., and the run has 10"),
        ((("head/.*", True), (".*", "soon")), "the row '.*' of .*_table must be a duration"),
        ((("head/.*", True), (".*", "1 epoch")), "needs the batch size"),
        ((("head/.*", True), (".*", None)), "must be a duration"),
    ],
)  # fmt: skip
def test_a_start_that_cannot_be_is_said(table, message):
    with pytest.raises(ValueError, match=message):
        Optimization(trainable_table=table).build(TwoLayers().build_model(), RunLength(10))


@pytest.mark.slow
def test_a_run_stopped_on_either_side_of_the_start_is_the_run_in_one(
    make_task, train_input, tmp_path, capsys
):
    def make(folder):
        optimization = Optimization(
            functools.partial(keras.optimizers.AdamW, weight_decay=0.1),
            3e-3,
            trainable_table=(("head.*", True), (".*", "50%")),
        )
        config = RunConfig(
            steps=8,
            strategy="cpu",
            steps_per_loop=2,
            checkpoint_interval=2,
            ema=Ema(decay=0.8),
            optimization=optimization,
        )
        return Estimator(make_task(depth=1, dropout=0.1), tmp_path / folder, config)

    make("whole").train(train_input)
    for steps in (2, 6, 8):
        make("parts").train(train_input, steps=steps)
    assert_same_run(tmp_path / "whole", tmp_path / "parts", step=8)
    assert "50%   .*" in capsys.readouterr().out
