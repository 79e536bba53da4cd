"""Top-k hits."""

import numpy as np
import tensorflow as tf

from vit_tf.evaluation.classification import in_top_k


def test_the_true_class_must_be_among_the_k_largest():
    logits = tf.constant([[0.1, 0.5, 0.4], [0.9, 0.5, 0.4]])
    labels = tf.constant([2, 2])
    assert in_top_k(labels, logits, 1).numpy().tolist() == [0, 0]
    assert in_top_k(labels, logits, 2).numpy().tolist() == [1, 0]
    assert in_top_k(labels, logits, 3).numpy().tolist() == [1, 1]


def test_ties_and_nan_are_not_right():
    assert in_top_k(tf.constant([0]), tf.zeros([1, 3]), 1).numpy().tolist() == [0]
    nan = tf.constant([[np.nan, 0.0, 0.0]])
    assert in_top_k(tf.constant([0]), nan, 3).numpy().tolist() == [0]
