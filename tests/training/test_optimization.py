"""Clipping, decay, rates and frozen weights, through the object that a run uses."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.training.gradients import sum_over_replicas
from vit_tf.training.optimization import Optimization
from vit_tf.training.run_length import RunLength
from vit_tf.training.schedules import constant, linear
from vit_tf.training.strategies import create_strategy

LENGTH = RunLength(steps=10)
SGD = keras.optimizers.SGD


class TwoLayers(keras.Model):
    """`body/kernel`, `body/bias`, `head/kernel`, `head/bias`, all ones."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.body = keras.layers.Dense(3, kernel_initializer="ones", bias_initializer="ones")
        self.head = keras.layers.Dense(2, kernel_initializer="ones", bias_initializer="ones")
        self.body.name, self.head.name = "body", "head"
        self(np.zeros((1, 4)))

    def call(self, inputs):
        return self.head(self.body(inputs))


def values(model) -> dict[str, np.ndarray]:
    return {weight.path.partition("/")[2]: weight.numpy() for weight in model.weights}


def after_one_step(optimization, gradient=0.0) -> dict[str, np.ndarray]:
    """The weights after a step in which every gradient is the same number."""
    model = TwoLayers()
    optimization.build(model, LENGTH)
    weights = model.trainable_weights
    optimization.apply([tf.fill(weight.shape, gradient) for weight in weights], weights)
    return values(model)


def decayed(**settings) -> dict[str, float]:
    """What a step with decay 0.5 and no gradient leaves of weights that were 1, at half rate."""
    optimizer = functools.partial(keras.optimizers.AdamW, weight_decay=0.5)
    optimization = Optimization(optimizer, 0.1, 0.5, **settings)
    return {name: value.flat[0] for name, value in after_one_step(optimization).items()}


def test_only_kernels_decay():
    found = decayed()
    assert found["body/kernel"] == pytest.approx(1 - 0.1 * 0.5 * 0.5)
    assert found["head/kernel"] == pytest.approx(1 - 0.1 * 0.5 * 0.5)
    assert found["body/bias"] == found["head/bias"] == 1


def test_decay_has_factors():
    found = decayed(weight_decay_table=(("head/.*", 3.0), ("body/kernel", 1.0), (".*", 0.0)))
    assert found["head/kernel"] == found["head/bias"] == pytest.approx(1 - 3 * 0.025)
    assert found["body/kernel"] == pytest.approx(1 - 0.025)
    assert found["body/bias"] == 1


def test_decay_follows_the_weights_own_rate_or_the_schedule_alone():
    table = {"learning_rate_table": (("head/.*", 4.0), (".*", 1.0))}
    own = decayed(**table)
    assert own["body/kernel"] == pytest.approx(1 - 0.025)
    assert own["head/kernel"] == pytest.approx(1 - 4 * 0.025)
    schedule = decayed(**table, decay_scaled_by="schedule")
    assert schedule["body/kernel"] == schedule["head/kernel"] == pytest.approx(1 - 0.5 * 0.5)


@pytest.mark.parametrize(
    "optimizer",
    [
        keras.optimizers.Adafactor,
        keras.optimizers.Adam,
        keras.optimizers.Lion,
        keras.optimizers.Muon,
        keras.optimizers.Nadam,
        keras.optimizers.RMSprop,
        functools.partial(SGD, momentum=0.9, nesterov=True),
    ],
)
def test_factors_of_the_rate_hold_for_any_keras_optimizer(optimizer):
    def change(rate, factor):
        table = (("head/kernel", factor), (".*", 1.0))
        optimizer_without_decay = functools.partial(optimizer, weight_decay=0.0)
        optimization = Optimization(
            optimizer_without_decay, rate, constant, learning_rate_table=table
        )
        found = after_one_step(optimization, gradient=0.5)
        return {name: 1 - value.flat[0] for name, value in found.items()}

    plain, ten = change(1e-3, 1.0), change(1e-3, 10.0)
    assert ten["head/kernel"] == pytest.approx(change(1e-2, 1.0)["head/kernel"], rel=1e-4)
    assert ten["head/kernel"] > 5 * plain["head/kernel"] > 0
    assert ten["body/kernel"] == plain["body/kernel"]
    assert ten["head/bias"] == plain["head/bias"]


def test_frozen_weights_have_no_slot_no_update_and_no_decay():
    model = TwoLayers()
    optimizer = functools.partial(keras.optimizers.AdamW, weight_decay=0.5)
    optimization = Optimization(
        optimizer, schedule=constant, trainable_table=(("head/.*", True), (".*", False))
    )
    built = optimization.build(model, LENGTH)
    assert [w.path for w in model.trainable_weights] == [
        f"{model.name}/head/kernel",
        f"{model.name}/head/bias",
    ]
    assert len(built.variables) == 1 + 2 * 2  # the count of steps and two moments a weight
    weights = model.trainable_weights
    optimization.apply([tf.ones(weight.shape) for weight in weights], weights)
    assert np.all(values(model)["body/kernel"] == 1) and np.all(values(model)["body/bias"] == 1)
    assert np.all(values(model)["head/kernel"] < 1)


def test_an_optimization_can_be_built_again_for_the_same_model():
    model = TwoLayers()
    optimization = Optimization(trainable_table=(("body/.*", False), (".*", True)))
    for _ in range(2):
        optimization.build(model, LENGTH)
        assert len(model.trainable_weights) == 2


def test_a_table_that_freezes_all_is_an_error():
    with pytest.raises(ValueError, match="trainable_table freezes every weight"):
        Optimization(trainable_table=((".*", False),)).build(TwoLayers(), LENGTH)


def test_gradients_are_clipped_by_their_global_norm():
    found = after_one_step(Optimization(SGD, 1.0, constant, clip_norm=2.0), gradient=3.0)
    norm = 3 * np.sqrt(4 * 3 + 3 + 3 * 2 + 2)
    for value in found.values():
        np.testing.assert_allclose(value, 1 - 3 * 2 / norm, rtol=1e-6)


def unit_norms(value: np.ndarray) -> np.ndarray:
    """Norm over all but the last axis; a vector is one unit."""
    return np.sqrt((value**2).sum(axis=0 if value.ndim > 1 else None, keepdims=True))


@pytest.mark.parametrize("exclude", [None, "head.*"])
def test_adaptive_clipping_bounds_each_unit_by_its_weights(exclude):
    rng = np.random.default_rng(0)
    model = TwoLayers()
    start = {w.path: rng.normal(size=w.shape).astype(np.float32) for w in model.weights}
    start[model.body.kernel.path][:, 0] = 0  # its norm counts as 0.001
    gradients = {w.path: rng.normal(size=w.shape).astype(np.float32) for w in model.weights}
    gradients[model.body.kernel.path][:, 1] *= 1e-4  # small enough to stay
    for weight in model.weights:
        weight.assign(start[weight.path])
    optimization = Optimization(
        SGD, 1.0, constant, clip_norm=None, adaptive_clip=0.01, adaptive_clip_exclude=exclude
    )
    optimization.build(model, LENGTH)
    norm = optimization.apply([gradients[w.path] for w in model.weights], model.weights)
    assert float(norm) == pytest.approx(
        np.sqrt(sum((g**2).sum() for g in gradients.values())), rel=1e-5
    )
    for weight in model.weights:
        gradient, before = gradients[weight.path], start[weight.path]
        if exclude is None or "head" not in weight.path:
            most = 0.01 * np.maximum(unit_norms(before), 1e-3)
            norms = unit_norms(gradient)
            gradient = np.where(norms > most, gradient * most / norms, gradient)
        np.testing.assert_allclose(weight.numpy(), before - gradient, rtol=1e-5, atol=1e-7)


def test_the_global_norm_is_taken_after_adaptive_clipping():
    optimization = Optimization(SGD, 1.0, constant, clip_norm=0.01, adaptive_clip=0.01)
    found = after_one_step(optimization, gradient=3.0)
    moved = np.sqrt(sum(((1 - value) ** 2).sum() for value in found.values()))
    assert moved == pytest.approx(0.01, rel=1e-4)


def test_replicas_are_summed_before_they_are_clipped_and_only_once():
    strategy = create_strategy("mirrored")
    with strategy.scope():
        model = TwoLayers()
        optimization = Optimization(SGD, 1.0, constant, clip_norm=2.0)
        optimization.build(model, LENGTH)

    @tf.function
    def step():
        def replica():
            sign = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
            # 4 on one replica and -1 on the other: 3 in sum, while each alone would be clipped.
            value = 4.0 - 5.0 * sign
            weights = model.trainable_weights
            gradients = [tf.fill(weight.shape, value) for weight in weights]
            return optimization.apply(sum_over_replicas(gradients), weights)

        return strategy.run(replica)

    norm = 3 * np.sqrt(4 * 3 + 3 + 3 * 2 + 2)
    norms = strategy.experimental_local_results(step())
    assert [float(found) for found in norms] == pytest.approx([norm, norm])
    np.testing.assert_allclose(values(model)["body/kernel"], 1 - 3 * 2 / norm, rtol=1e-6)


def test_rates_are_told_by_group():
    optimization = Optimization(
        SGD,
        learning_rate=0.2,
        schedule=linear,
        learning_rate_table=(("head/.*", 10.0), (".*/bias", 0.5), (".*", 1.0)),
        trainable_table=((".*bias", False), (".*", True)),
    )
    optimization.build(TwoLayers(), LENGTH).iterations.assign(5)
    assert optimization.learning_rates() == pytest.approx({"head": 1.0, "rest": 0.1})


def test_a_text_tells_which_row_every_weight_matched():
    optimizer = functools.partial(keras.optimizers.AdamW, weight_decay=0.05)
    optimization = Optimization(optimizer, learning_rate_table=(("head/.*", 10.0), (".*", 1.0)))
    optimization.build(TwoLayers(), LENGTH)
    assert optimization.describe().splitlines() == [
        "trainable",
        "  True  .*  4 weights  23 parameters  body/kernel, body/bias, head/kernel, ...",
        "learning rate, x 0.001",
        "  10  head/.*  2 weights   8 parameters  head/kernel, head/bias",
        "  1   .*       2 weights  15 parameters  body/kernel, body/bias",
        "weight decay, x 0.05 x learning rate",
        r"  1  .*kernel(:\d+)?  2 weights  18 parameters  body/kernel, head/kernel",
        "  0  .*               2 weights   5 parameters  body/bias, head/bias",
    ]


class Halving(keras.optimizers.Optimizer):
    """A user's own optimizer, without a slot."""

    def update_step(self, gradient, variable, learning_rate):
        self.assign(variable, variable * (1 - 0.5 * keras.ops.cast(learning_rate, variable.dtype)))


def test_an_optimizer_of_ones_own_follows_the_tables():
    found = after_one_step(
        Optimization(Halving, 0.5, constant, learning_rate_table=(("head.*", 0.0), (".*", 2.0)))
    )
    assert np.all(found["body/kernel"] == 0.5) and np.all(found["head/kernel"] == 1)


def test_an_optimizer_that_goes_past_its_update_step_is_an_error():
    def make(learning_rate):
        return keras.optimizers.LossScaleOptimizer(SGD(learning_rate))

    with pytest.raises(TypeError, match="LossScaleOptimizer does not update each weight by"):
        after_one_step(Optimization(make))


def test_an_optimizer_that_is_made_already_is_an_error():
    with pytest.raises(TypeError, match=r"class or function.*given a SGD .*@SGD, without brackets"):
        Optimization(SGD(0.1))


@pytest.mark.parametrize(
    "setting, instead",
    [
        ({"gradient_accumulation_steps": 2}, "RunConfig.accumulation_steps splits batches"),
        ({"use_ema": True}, "RunConfig.ema = .* averages weights"),
        ({"loss_scale_factor": 2.0}, "bfloat16 training needs no scaled loss"),
    ],
)
def test_what_is_done_elsewhere_is_not_done_twice(setting, instead):
    with pytest.raises(ValueError, match=f"SGD.{next(iter(setting))} must not be set: {instead}"):
        after_one_step(Optimization(functools.partial(SGD, **setting)))


def test_an_exclusion_from_adaptive_clipping_that_excludes_nothing_is_an_error():
    with pytest.raises(ValueError, match="adaptive_clip_exclude 'haed' matches no trained weight"):
        after_one_step(Optimization(adaptive_clip=0.01, adaptive_clip_exclude="haed"))
    after_one_step(Optimization(adaptive_clip_exclude="haed"))


@pytest.mark.parametrize("name", ["clip_norm", "adaptive_clip", "reference_batch", "sam_rho"])
def test_numbers_out_of_range(name):
    with pytest.raises(ValueError, match=f"{name} must be positive or None; given 0"):
        Optimization(**{name: 0})
    with pytest.raises(ValueError, match="learning_rate must be positive; given -1"):
        Optimization(learning_rate=-1)
    with pytest.raises(ValueError, match="decay_scaled_by must be one of learning_rate, schedule"):
        Optimization(decay_scaled_by="rate")
    with pytest.raises(ValueError, match="reference_batch needs a RunLength with a batch_size"):
        Optimization(reference_batch=256).build(TwoLayers(), LENGTH)
