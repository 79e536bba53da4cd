"""Measures of classification, one value an example, so that padding can be left out exactly."""

import tensorflow as tf


def dense_targets(labels: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Labels as a vector an example.

    Args:
      labels: integers [batch], or float targets [batch, classes] of at most `num_classes`.
      num_classes: of the model; it may have more than the data.

    Returns:
      float32 [batch, num_classes]: one-hot, or the targets followed by zeros.

    Raises:
      ValueError: for labels of another form.
    """
    if labels.dtype.is_integer and labels.shape.rank == 1:
        return tf.one_hot(labels, num_classes)
    further = num_classes - (labels.shape[-1] or 0)
    if not labels.dtype.is_floating or labels.shape.rank != 2 or further < 0:
        raise ValueError(
            f"labels must be integers [batch] or float targets [batch, classes] of at most "
            f"{num_classes} classes; given {labels.dtype.name} {labels.shape}"
        )
    return tf.pad(tf.cast(labels, tf.float32), [[0, 0], [0, further]])


def labels_of(targets: tf.Tensor) -> tf.Tensor:
    """Which classes an example is labelled with: those with the largest target, if above 0.

    Args:
      targets: float [batch, classes]: multi-hot, one-hot, smoothed or soft.

    Returns:
      bool [batch, classes]. An example whose targets are all 0 has no label.
    """
    largest = tf.reduce_max(targets, axis=-1, keepdims=True)
    return (targets == largest) & (targets > 0)


def in_top_k(labels: tf.Tensor, logits: tf.Tensor, k: int) -> tf.Tensor:
    """Whether the true class, or one of several, is among the k largest logits.

    For several labels and k = 1 this is ReaL accuracy (Beyer et al., 2020, section 4) and
    big_vision's `prec@1`: the largest logit's class is one of the labels.

    Ties count against the label: an example is right only if fewer than k other classes reach the
    logit of the true one, and of several, of the one with the largest logit. A model whose logits
    are all equal therefore scores 0, not 1. A NaN is never right, and no example without labels.

    Args:
      labels: integers [batch], or bool [batch, classes]: which are true.
      logits: [batch, classes].
      k: how many classes may be named.

    Returns:
      float32 [batch] of 0 and 1.
    """
    labels, logits = tf.convert_to_tensor(labels), tf.convert_to_tensor(logits)
    if labels.dtype != tf.bool:
        labels = tf.one_hot(labels, logits.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    of_labels = tf.where(labels, logits, logits.dtype.min)
    best = tf.reduce_max(of_labels, axis=-1, keepdims=True)  # [batch, 1]
    others_reaching = tf.reduce_sum(tf.cast(~labels & (logits >= best), tf.int32), axis=-1)
    valid = tf.math.is_finite(best[:, 0]) & ~tf.reduce_any(tf.math.is_nan(of_labels), axis=-1)
    valid &= tf.reduce_any(labels, axis=-1)
    return tf.cast((others_reaching < k) & valid, tf.float32)
