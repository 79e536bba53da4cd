"""Measures of classification, one value an example, so that padding can be left out exactly."""

import tensorflow as tf


def in_top_k(labels: tf.Tensor, logits: tf.Tensor, k: int) -> tf.Tensor:
    """Whether the true class is among the k largest logits.

    Ties count against the label: an example is right only if fewer than k other classes reach the
    logit of the true one. A model whose logits are all equal therefore scores 0, not 1, and a NaN
    is never right.

    Args:
      labels: integers [batch].
      logits: [batch, classes].
      k: how many classes may be named.

    Returns:
      float32 [batch] of 0 and 1.
    """
    true = tf.gather(logits, labels, batch_dims=1, axis=-1)[:, None]  # [batch, 1]
    others_reaching = tf.reduce_sum(tf.cast(logits >= true, tf.int32), axis=-1) - 1
    right = (others_reaching < k) & tf.math.is_finite(true[:, 0])
    return tf.cast(right, tf.float32)
