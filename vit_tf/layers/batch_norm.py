"""Batch normalisation as torch's models have it."""

import keras

# torch's defaults; Keras' momentum is the share that stays, torch's the share that changes.
_EPSILON = 1e-5
_MOMENTUM = 0.9


def batch_norm(**kwargs) -> keras.layers.BatchNormalization:
    """Batch normalisation over the last axis with the numbers that torch starts from.

    In training it normalises by the mean and variance of the replica's batch, or of all replicas'
    where `synchronized` says so, and moves its statistics by a tenth of what it saw.

    Args:
        **kwargs: Arguments of `keras.layers.BatchNormalization`: `name`, `dtype`,
            `gamma_initializer`, ...
    """
    return keras.layers.BatchNormalization(momentum=_MOMENTUM, epsilon=_EPSILON, **kwargs)
