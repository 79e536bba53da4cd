"""Dropout as a function of seed, step and replica."""

import keras
import numpy as np
import tensorflow as tf

from vit_tf.training.randomness import seeded_step
from vit_tf.training.strategies import create_strategy


def dropout_model():
    return keras.Sequential(
        [keras.layers.Input((64,)), keras.layers.Dropout(0.5), keras.layers.Dropout(0.5)]
    )


def masks(model, seed, step):
    @tf.function
    def run(step):
        with seeded_step(model, seed, step):
            return model(tf.ones([2, 64]), training=True)

    return run(tf.constant(step, tf.int64)).numpy()


def test_the_same_step_draws_the_same_mask_in_any_process():
    np.testing.assert_array_equal(masks(dropout_model(), 1, 5), masks(dropout_model(), 1, 5))


def test_seeds_and_steps_draw_other_masks():
    model = dropout_model()
    drawn = [masks(model, seed, step) for seed, step in ((1, 5), (1, 6), (2, 5))]
    for one in range(3):
        for other in range(one):
            assert (drawn[one] != drawn[other]).any()


def test_replicas_draw_masks_of_their_own():
    strategy = create_strategy("mirrored")
    with strategy.scope():
        model = dropout_model()

    @tf.function
    def run():
        def replica():
            with seeded_step(model, 1, tf.constant(5, tf.int64)):
                return model(tf.ones([2, 64]), training=True)

        return strategy.run(replica)

    first, second = strategy.experimental_local_results(run())
    assert (first.numpy() != second.numpy()).any()


def test_batch_statistics_are_still_updated():
    model = keras.Sequential(
        [
            keras.layers.Input((4,)),
            keras.layers.Dropout(0.1),
            keras.layers.BatchNormalization(momentum=0.0),
        ]
    )

    @tf.function
    def run(x):
        with seeded_step(model, 0, tf.constant(0, tf.int64)):
            model(x, training=True)

    run(tf.fill([8, 4], 3.0))
    assert (np.abs(model.layers[1].moving_mean.numpy()) > 1).all()
