"""Schedules, clipping and decay against their definitions."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.training.optimization import Optimization
from vit_tf.training.schedules import constant, warmup_cosine
from vit_tf.training.strategies import create_strategy


@pytest.mark.parametrize("warmup_steps", [0, 5])
def test_warmup_cosine_is_a_line_and_half_a_cosine(warmup_steps):
    total, peak, final = 45, 2e-3, 1e-5
    schedule = warmup_cosine(total, peak, warmup_steps, final)
    for step in range(total + 3):
        if step < warmup_steps:
            expected = peak * step / warmup_steps
        else:
            progress = min(1.0, (step - warmup_steps) / (total - warmup_steps))
            expected = final + (peak - final) * 0.5 * (1 + np.cos(np.pi * progress))
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-5, abs=1e-10)


def test_a_warmup_may_be_a_share_of_the_run():
    share, steps = warmup_cosine(200, warmup_steps=0.1), warmup_cosine(200, warmup_steps=20)
    assert [float(share(s)) for s in (5, 20, 100)] == [float(steps(s)) for s in (5, 20, 100)]


def test_a_warmup_as_long_as_the_run_is_an_error():
    with pytest.raises(ValueError, match=r"warmup_steps must lie in \[0, total_steps\)"):
        warmup_cosine(10, warmup_steps=10)


def small_model():
    model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, name="dense")])
    model.layers[0].kernel.assign(np.ones((3, 4)))
    model.layers[0].bias.assign(np.ones(4))
    return model


def test_only_kernels_decay():
    model = small_model()
    optimizer = functools.partial(keras.optimizers.AdamW, weight_decay=0.5)
    optimization = Optimization(optimizer, functools.partial(constant, rate=0.1))
    optimization.build(model, 10)
    optimization.apply([tf.zeros_like(w) for w in model.weights], model.trainable_weights)
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(kernel, 1 - 0.1 * 0.5, rtol=1e-6)
    np.testing.assert_array_equal(bias, 1)


def test_gradients_are_clipped_by_their_global_norm():
    model = small_model()
    sgd = functools.partial(keras.optimizers.SGD, momentum=0.0)
    optimization = Optimization(sgd, functools.partial(constant, rate=1.0), clip_norm=2.0)
    optimization.build(model, 10)
    gradients = [tf.fill([3, 4], 3.0), tf.fill([4], 3.0)]
    norm = optimization.apply(gradients, model.trainable_weights)
    assert float(norm) == pytest.approx(12.0)  # 3 * sqrt(16)
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(kernel, 1 - 3 * 2 / 12, rtol=1e-6)
    np.testing.assert_allclose(bias, 1 - 3 * 2 / 12, rtol=1e-6)


def test_replicas_are_summed_before_they_are_clipped_and_only_once():
    strategy = create_strategy("mirrored")
    with strategy.scope():
        model = small_model()
        sgd = functools.partial(keras.optimizers.SGD, momentum=0.0)
        optimization = Optimization(sgd, functools.partial(constant, rate=1.0), clip_norm=2.0)
        optimization.build(model, 10)

    @tf.function
    def step():
        def replica():
            sign = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
            # 4 on one replica and -1 on the other: 3 in sum, while each alone would be clipped.
            value = 4.0 - 5.0 * sign
            gradients = [tf.fill([3, 4], value), tf.fill([4], value)]
            return optimization.apply(gradients, model.trainable_weights)

        return strategy.run(replica)

    norms = strategy.experimental_local_results(step())
    assert [float(norm) for norm in norms] == pytest.approx([12.0, 12.0])
    np.testing.assert_allclose(model.get_weights()[0], 1 - 3 * 2 / 12, rtol=1e-6)


def test_a_clip_norm_of_zero_is_an_error():
    with pytest.raises(ValueError, match="clip_norm must be positive or None; given 0"):
        Optimization(clip_norm=0)
