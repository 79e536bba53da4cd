"""Gradient accumulation: k micro-batches of b examples do what one batch of k * b does."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.data import Mixing
from vit_tf.training import Classification, Optimization, RunConfig
from vit_tf.training.gradients import Gradients
from vit_tf.training.run_length import RunLength
from vit_tf.training.step import TrainStep
from vit_tf.training.strategies import create_strategy

MIXING = Mixing(mixup_alpha=0.8, cutmix_alpha=1.0, mode="elementwise")
BATCH = 12
SMALL = dict(depth=1, width=16, mlp_dim=16)


def batch_of(size=BATCH, masked=()):
    generator = np.random.default_rng(0)
    mask = np.ones(size, np.float32)
    mask[list(masked)] = 0.0
    images = generator.uniform(-1, 1, (size, 8, 8, 3)).astype(np.float32)
    return {"image": images, "label": generator.integers(0, 10, size), "mask": mask}


def model_of(task):
    """The task's model with a head that does not start at zero and lets gradients through."""
    keras.utils.set_random_seed(0)
    model = task.build_model()
    kernel = model.head.kernel
    kernel.assign(np.random.default_rng(1).normal(0, 0.3, kernel.shape))
    return model


def trained(task, batch, strategy="cpu", steps=2, **config):
    """Weights and means after `steps` optimizer steps on the same batch."""
    strategy = create_strategy(strategy)
    # Plain SGD, whose update is the gradient itself: Adam would hide its scale.
    sgd = functools.partial(keras.optimizers.SGD, momentum=0.0)
    optimization = Optimization(sgd, 0.1, 1.0, clip_norm=None)
    config = RunConfig(strategy="cpu", steps=steps, optimization=optimization, **config)
    with strategy.scope():
        model = model_of(task)
        optimization.build(model, RunLength(steps))
    step = TrainStep(task, model, config, strategy, BATCH)
    share = BATCH // strategy.num_replicas_in_sync

    def of_replica(context):
        part = slice(context.replica_id_in_sync_group * share, None)
        return {name: tf.constant(value[part][:share]) for name, value in batch.items()}

    shares = strategy.experimental_distribute_values_from_function(of_replica)
    run = tf.function(lambda: strategy.run(step, args=(shares,)))
    for _ in range(steps):
        run()
    assert step.num_traces == strategy.num_replicas_in_sync
    return model.get_weights(), step.means()


def assert_equal_runs(one, other, atol=1e-6):
    for first, second in zip(one[0], other[0], strict=True):
        np.testing.assert_allclose(first, second, rtol=0, atol=atol)
    assert one[1] == pytest.approx(other[1], abs=1e-5)


@pytest.mark.parametrize(
    ("mixing", "jit_compile"), [(None, False), (MIXING, True)], ids=["plain", "mixed and compiled"]
)
def test_micro_batches_do_what_the_whole_batch_does(make_task, mixing, jit_compile):
    # The masks differ from micro-batch to micro-batch; one of them holds no example at all.
    batch = batch_of(masked=(1, 8, 9, 10, 11))
    task = make_task(mixing, **SMALL)
    whole = trained(task, batch, jit_compile=jit_compile)
    parts = trained(task, batch, accumulation_steps=3, jit_compile=jit_compile)
    assert_equal_runs(whole, parts)
    assert whole[1]["skipped_examples"] == 10


def test_two_compiled_replicas_with_micro_batches_do_what_one_does_without(make_task):
    task, batch = make_task(**SMALL), batch_of(masked=(1, 8))
    settings = dict(strategy="mirrored", accumulation_steps=3, jit_compile=True)
    assert_equal_runs(trained(task, batch), trained(task, batch, **settings))


class Drawing(Classification):
    """Draws a factor of the loss, once a step, and tells which examples it came with."""

    def draw(self, key):
        return {"factor": 1.0 + tf.random.stateless_uniform([], key)}

    def train_values(self, model, batch):
        assert batch["factor"].shape.rank == 0
        values = super().train_values(model, batch)
        return values | {"loss": values["loss"] * batch["factor"]}


def test_what_a_step_draws_reaches_each_micro_batch(make_task):
    task = make_task(**SMALL)
    task.__class__ = Drawing
    whole = trained(task, batch_of())
    assert_equal_runs(whole, trained(task, batch_of(), accumulation_steps=4))


def test_each_micro_batch_has_dropout_of_its_own(make_task):
    task = make_task(dropout=0.5, **SMALL)
    model = model_of(task)
    half = {name: value[:6] for name, value in batch_of().items()}
    batch = {name: tf.concat([value, value], 0) for name, value in half.items()}
    weights = [tf.convert_to_tensor(weight) for weight in model.trainable_weights]

    def loss_sum(batch, accumulation_steps):
        gradients = Gradients(task, model, [], BATCH, accumulation_steps)
        key = tf.constant([3, 5])
        _, _, sums = tf.function(lambda: gradients(batch, weights, [], key))()
        return dict(zip(gradients.names, sums.numpy(), strict=False))["loss"]

    # The same examples twice: with the same masks the loss would be twice that of the half.
    half = {name: tf.constant(value) for name, value in half.items()}
    twice = loss_sum(batch, 2)
    assert abs(twice - 2 * loss_sum(half, 1)) > 1e-2
    assert twice == loss_sum(batch, 2)


def test_gradients_of_half_types_are_summed_in_float32():
    model = keras.Sequential([keras.Input([1]), keras.layers.Dense(1, dtype="bfloat16")])

    class Sum(Classification):
        def train_values(self, model, batch):
            return {"loss": tf.cast(model(batch["image"])[:, 0], tf.float32)}

    count = 512
    batch = {"image": tf.ones([count, 1]), "mask": tf.ones([count])}
    weights = [tf.convert_to_tensor(weight) for weight in model.trainable_weights]
    gradients = Gradients(Sum(lambda: model), model, [], 1, accumulation_steps=count)
    (kernel, bias), _, _ = tf.function(lambda: gradients(batch, weights, [], tf.constant([0, 1])))()
    assert kernel.dtype == bias.dtype == tf.bfloat16
    assert float(kernel[0, 0]) == float(bias[0]) == count  # in bfloat16, 256 + 1 is 256


def test_a_batch_that_micro_batches_do_not_divide_is_an_error_with_the_numbers(
    make_estimator, train_input
):
    message = (
        r"RunConfig\.accumulation_steps 5 does not divide a replica's batch of 64 examples; take "
        r"one of 1, 2, 4, 8, 16, 32, 64"
    )
    with pytest.raises(ValueError, match=message):
        make_estimator(accumulation_steps=5).train(train_input)
    message = r"64 does not divide a replica's batch of 32 examples \(64 over 2 replicas\)"
    with pytest.raises(ValueError, match=message):
        make_estimator(accumulation_steps=64, strategy="mirrored").train(train_input)
    with pytest.raises(ValueError, match="accumulation_steps must be positive; given 0"):
        RunConfig(accumulation_steps=0)
