"""Random numbers that follow from a key, the same compiled by XLA or not.

Random bits come from Philox as integers, which XLA makes as TensorFlow does, unlike floats.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

_ATTEMPTS = 16  # of which each is accepted with probability 0.95 or more
DIRICHLET_DRAWS = 3 * _ATTEMPTS + 1  # uniform numbers that `symmetric_dirichlet` makes a share of


def uniforms(shape: Sequence[int], key: tf.Tensor) -> tf.Tensor:
    """Random float32 of a shape, strictly between 0 and 1; the key is an integer tensor `[2]`."""
    steps = 2**23  # so that the middle of each step is a float32
    whole = tf.random.stateless_uniform(shape, key, 0, steps, dtype=tf.int32, alg="philox")
    return (tf.cast(whole, tf.float32) + 0.5) / steps


def symmetric_beta(u: tf.Tensor, v: tf.Tensor, alpha: tf.Tensor | float) -> tf.Tensor:
    """Beta(alpha, alpha) out of two uniform numbers, without rejection, for any alpha > 0.

    sqrt(2 alpha (u^(-1/alpha) - 1)) cos(2 pi v) is a Student t of 2 alpha degrees of freedom
    (Bailey, 1994), and (1 + t / sqrt(2 alpha + t^2)) / 2 is Beta(alpha, alpha) (Devroye, 1996).
    The two are put together so that nothing overflows where alpha is small.

    Args:
      u: float32 [...], in (0, 1).
      v: float32 [...], in (0, 1).
      alpha: broadcast to them.

    Returns:
      float32 [...] in [0, 1].
    """
    power = u ** (1.0 / alpha)
    cosine = tf.cos(2.0 * math.pi * v)
    tail = (1.0 - power) * tf.square(cosine)
    return 0.5 * (1.0 + tf.sign(cosine) * tf.sqrt(tail / (power + tail)))


def symmetric_dirichlet(draws: tf.Tensor, alpha: float) -> tf.Tensor:
    """Dirichlet(alpha, ..., alpha) for any alpha > 0: shares along the last axis, of sum 1.

    They are Gamma(alpha) over their sum. The gammas are Marsaglia and Tsang's (2000) for alpha + 1,
    times u^(1 / alpha) as they say; as logarithms, since these powers of u underflow.

    Args:
      draws: float32 [DIRICHLET_DRAWS, ...], uniform in (0, 1).
      alpha: concentration; small: nearly all is one share; large: all shares are alike.

    Returns:
      float32 [...] in [0, 1].
    """
    u, v, chance = tf.split(draws[1:], 3)  # each [attempts, *shape]
    normal = tf.sqrt(-2.0 * tf.math.log(u)) * tf.cos(2.0 * math.pi * v)
    d = alpha + 1.0 - 1.0 / 3.0
    log_cube = 3.0 * tf.math.log(tf.maximum(1.0 + normal / math.sqrt(9.0 * d), 1e-30))
    bound = 0.5 * tf.square(normal) + d * (1.0 - tf.exp(log_cube) + log_cube)
    first = tf.argmax(tf.cast(tf.math.log(chance) < bound, tf.int32), axis=0)  # [*shape]
    accepted = tf.reduce_sum(log_cube * tf.one_hot(first, _ATTEMPTS, axis=0), axis=0)
    return tf.nn.softmax(accepted + tf.math.log(draws[0]) / alpha)
