"""Top-k hits, of one label or several."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_tf.evaluation.classification import dense_targets, in_top_k, labels_of


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
    several = tf.constant([[True, True, False]])
    assert in_top_k(several, tf.zeros([1, 3]), 1).numpy().tolist() == [0]
    assert in_top_k(several, nan, 3).numpy().tolist() == [0]


def test_ties_among_the_labels_do_not_matter():
    several = tf.constant([[True, True, False]])
    assert in_top_k(several, tf.constant([[2.0, 2.0, 1.0]]), 1).numpy().tolist() == [1]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), classes=st.integers(6, 12), share=st.floats(0.0, 0.6))
def test_several_labels_are_as_real_accuracy_has_them(seed, classes, share):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=[16, classes]).astype(np.float32)
    real_labels = [np.flatnonzero(row).tolist() for row in rng.uniform(size=logits.shape) < share]
    targets = np.array([[float(c in labels) for c in range(classes)] for labels in real_labels])
    labels = labels_of(tf.constant(targets))
    predictions = logits.argmax(axis=-1)
    right = [said in true for said, true in zip(predictions, real_labels, strict=True)]
    np.testing.assert_array_equal(in_top_k(labels, logits, 1), right)
    best = np.argsort(-logits, axis=-1)[:, :5]
    right = [bool(set(five) & set(true)) for five, true in zip(best, real_labels, strict=True)]
    np.testing.assert_array_equal(in_top_k(labels, logits, 5), right)


def test_labels_are_the_largest_targets_above_zero():
    targets = tf.constant([[0, 1, 1], [0, 0, 0], [0.02, 0.9, 0.02], [0.3, 0.7, 0], [1, 1, 1]])
    assert labels_of(targets).numpy().astype(int).tolist() == [
        [0, 1, 1], [0, 0, 0], [0, 1, 0], [0, 1, 0], [1, 1, 1]]  # fmt: skip


def test_a_model_may_have_more_classes_than_the_targets():
    np.testing.assert_array_equal(dense_targets(tf.constant([1, 0]), 3), np.eye(3)[[1, 0]])
    targets = dense_targets(tf.constant([[0.5, 0.25]]), 4)
    np.testing.assert_array_equal(targets, [[0.5, 0.25, 0, 0]])


@pytest.mark.parametrize("labels", [np.zeros([2, 5], np.float32), np.zeros([2, 1], np.int32)])
def test_labels_of_another_form_are_refused(labels):
    message = r"float targets \[batch, classes\] of at most 4 classes; given \w+ \(2, [15]\)"
    with pytest.raises(ValueError, match=message):
        dense_targets(tf.constant(labels), 4)
