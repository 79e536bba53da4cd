"""Dropout as a function of seed, step and replica."""

import keras
import numpy as np
import tensorflow as tf

from vit_tf.data import Mixing
from vit_tf.training.randomness import augmentation_key, batch_statistics, replica_key, seeded
from vit_tf.training.strategies import create_strategy


def dropout_model():
    return keras.Sequential(
        [keras.layers.Input((64,)), keras.layers.Dropout(0.5), keras.layers.Dropout(0.5)]
    )


def masks(model, seed, step):
    @tf.function
    def run(step):
        with seeded(model, replica_key(seed, step)):
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
            with seeded(model, replica_key(1, tf.constant(5, tf.int64))):
                return model(tf.ones([2, 64]), training=True)

        return strategy.run(replica)

    first, second = strategy.experimental_local_results(run())
    assert (first.numpy() != second.numpy()).any()


def test_augmentation_keys_are_the_same_compiled_and_others_for_other_seeds_and_steps():
    def key(seed, step, **settings):
        run = tf.function(lambda step: augmentation_key(seed, step), **settings)
        return tuple(run(tf.constant(step, tf.int64)).numpy())

    assert key(1, 5) == key(1, 5, jit_compile=True)
    assert len({key(1, 5), key(1, 6), key(2, 5), key(2, 6)}) == 4


def test_each_replica_mixes_its_part_of_the_batch_with_draws_of_its_own(make_task):
    strategy = create_strategy("mirrored")
    task = make_task(Mixing(mixup_alpha=0.8, cutmix_alpha=1.0, mode="elementwise"))
    with strategy.scope():
        model = task.build_model()
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    batch = {"image": images, "label": np.arange(4), "mask": np.ones(4, np.float32)}
    batch = {name: tf.constant(value) for name, value in batch.items()}

    @tf.function
    def run():
        def replica():
            key = augmentation_key(1, tf.constant(5, tf.int64))
            return key, task.augment(model, batch, key)

        return strategy.run(replica)

    keys, mixed = run()
    first, second = strategy.experimental_local_results(mixed["image"])
    assert (first.numpy() != second.numpy()).any()
    for key, image in zip(strategy.experimental_local_results(keys), (first, second), strict=True):
        alone = task.augment(model, batch, key)["image"]
        np.testing.assert_allclose(image.numpy(), alone.numpy(), rtol=0, atol=1e-6)


def test_batch_statistics_are_told_and_not_assigned():
    model = keras.Sequential(
        [
            keras.layers.Input((4,)),
            keras.layers.Dropout(0.1),
            keras.layers.BatchNormalization(momentum=0.0),
        ]
    )

    @tf.function
    def run(x):
        with seeded(model, replica_key(0, tf.constant(0, tf.int64))) as scope:
            model(x, training=True)
        return [scope.get_current_value(variable) for variable in batch_statistics(model)]

    mean, _ = run(tf.fill([8, 4], 3.0))
    assert (np.abs(mean) > 1).all()
    np.testing.assert_array_equal(model.layers[1].moving_mean.numpy(), 0.0)
