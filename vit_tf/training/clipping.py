"""Clipping of gradients: by their global norm, and unit by unit relative to the weights."""

from collections.abc import Sequence

import keras
import tensorflow as tf

# Brock et al. 2021, section 4: keeps units that are still zero from being frozen there.
_LEAST_WEIGHT_NORM = 1e-3


def global_norm(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """Root of the sum of all squares, a float32 scalar.

    Where the norm of some of the same tensors is asked for too, TensorFlow's graph optimizer finds
    that their squares are summed already (those of `tf.linalg.global_norm` it does not recognise).
    """
    halves = [tf.nn.l2_loss(tf.cast(tensor, tf.float32)) for tensor in tensors]
    # Not `add_n`: in what order it adds depends on which tensor it may overwrite at that moment.
    return tf.sqrt(2 * tf.reduce_sum(tf.stack(halves)))


def clip_by_norm(gradients: Sequence[tf.Tensor], norm: tf.Tensor, most: float) -> list[tf.Tensor]:
    """Scales gradients of a global norm down to `most`; NaN if the norm is not finite."""
    scale = most * tf.minimum(1 / norm, 1 / most)
    scale = tf.where(tf.math.is_finite(norm), scale, float("nan"))  # an infinity is an error too
    return [gradient * tf.cast(scale, gradient.dtype) for gradient in gradients]


def clip_units(gradient: tf.Tensor, weight: keras.Variable, most: float) -> tf.Tensor:
    """Adaptive gradient clipping (Brock et al. 2021, NFNets, section 4.1).

    A unit is an output of a layer: all but the last axis of a kernel lead to it. A weight with at
    most one axis longer than 1 (bias, norm, token) is a single unit.

    Args:
      gradient: of the weight.
      weight: as it is before the update.
      most: largest norm of a unit's gradient, as a multiple of the norm of its weights.

    Returns:
      The gradient with those units scaled down that were larger.
    """
    largest = most * tf.maximum(_unit_norm(tf.convert_to_tensor(weight)), _LEAST_WEIGHT_NORM)
    norm = _unit_norm(gradient)
    # A NaN compares false and stays one.
    clipped = gradient * tf.cast(largest / tf.maximum(norm, 1e-6), gradient.dtype)
    return tf.where(norm > largest, clipped, gradient)


def _unit_norm(value: tf.Tensor) -> tf.Tensor:
    single = sum(size > 1 for size in value.shape) <= 1
    axes = None if single else list(range(len(value.shape) - 1))
    squares = tf.square(tf.cast(value, tf.float32))
    return tf.sqrt(tf.reduce_sum(squares, axis=axes, keepdims=True))
