"""Accuracy counts every example once, and says what is confused with what."""

import numpy as np
import pytest
import tensorflow as tf

from vit_tf.evaluation.accuracy import measure_accuracy

CLASSES, EXAMPLES = 7, 50
rng = np.random.default_rng(0)
SCORES = rng.normal(size=(EXAMPLES, CLASSES)).astype("float32")
LABELS = rng.integers(0, 5, EXAMPLES).astype("int32")  # two classes have no example


def batches(labels, scores=SCORES, size=16):
    """Batches whose images are the scores, the last one padded with examples that would count."""
    padding = -len(scores) % size
    mask = np.r_[np.ones(len(scores)), np.zeros(padding)].astype("float32")
    columns = {
        "image": np.r_[scores, scores[:padding]],
        "label": np.r_[labels, labels[:padding]],
        "mask": mask,
    }
    return tf.data.Dataset.from_tensor_slices(columns).batch(size)


def test_figures_are_those_of_numpy():
    found = measure_accuracy(tf.identity, batches(LABELS), CLASSES)
    order = np.argsort(-SCORES, axis=1)
    right = order[:, 0] == LABELS
    figures = found.figures()
    assert figures["examples"] == EXAMPLES
    assert figures["accuracy"] == pytest.approx(right.mean())
    assert figures["top5_accuracy"] == pytest.approx(
        np.mean([label in row[:5] for label, row in zip(LABELS, order, strict=True)])
    )
    by_class = [right[k == LABELS].mean() for k in range(5)]
    assert figures["mean_class_accuracy"] == pytest.approx(np.mean(by_class))
    details = found.details()
    assert [one["accuracy"] for one in details["classes"]] == [*by_class, None, None]
    confusion = np.zeros((CLASSES, CLASSES), int)
    np.add.at(confusion, (LABELS, order[:, 0]), 1)
    told = np.zeros_like(confusion)
    for label, predicted, count in details["confusion"]:
        told[label, predicted] = count
    np.testing.assert_array_equal(told, confusion)
    counts = [count for _, _, count in details["confusion"]]
    assert counts == sorted(counts, reverse=True)
    assert 0 not in counts


def test_nothing_depends_on_the_batches():
    one, other = (measure_accuracy(tf.identity, batches(LABELS, size=s), CLASSES) for s in (3, 50))
    assert one.figures() == other.figures()
    assert one.details() == other.details()


def test_of_several_labels_it_is_real_accuracy_and_the_unlabelled_are_left_out():
    labels = (rng.uniform(size=(EXAMPLES, CLASSES)) < 0.3).astype("float32")
    labels[:4] = 0.0
    found = measure_accuracy(tf.identity, batches(labels), CLASSES)
    labelled = labels.any(axis=1)
    predicted = SCORES.argmax(axis=1)
    hits = labels[np.arange(EXAMPLES), predicted][labelled]
    figures = found.figures()
    assert figures["accuracy"] == pytest.approx(hits.mean())
    assert figures["examples"] == labelled.sum()
    assert figures["left_out_examples"] == (~labelled).sum() >= 4
    assert found.details()["confusion"] == []
    with pytest.raises(ValueError, match=r"no example with a label \(50 have none\)"):
        measure_accuracy(tf.identity, batches(np.zeros_like(labels)), CLASSES)


def test_a_model_may_have_more_classes_than_the_data_but_not_fewer():
    with pytest.warns(UserWarning, match="the data has 5 classes and the model 7: they are taken"):
        found = measure_accuracy(tf.identity, batches(LABELS), 5)
    assert len(found.details()["classes"]) == 5
    right = SCORES.argmax(axis=1) == LABELS
    assert found.figures()["accuracy"] == pytest.approx(right.mean())
    with pytest.raises(ValueError, match="the data has 9 classes and the model 7"):
        measure_accuracy(tf.identity, batches(LABELS), 9)


def test_without_five_classes_there_is_no_top_5():
    found = measure_accuracy(tf.identity, batches(LABELS, SCORES[:, :5]), 5)
    assert "top5_accuracy" not in found.figures()
