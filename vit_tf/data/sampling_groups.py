"""Records sorted into groups that get a share of the training stream each: classes, data sets."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from vit_tf.data.record_order import SamplingGroups
from vit_tf.data.record_stream import RecordStream
from vit_tf.data.record_values import read_values
from vit_tf.data.sources import Source

CLASS_WEIGHTS = {"balanced": 0.0, "square_root": 0.5}


def read_labels(source: Source, stream: RecordStream) -> tuple[np.ndarray, np.ndarray]:
    """Reads every record of a stream once for its label.

    Returns:
      Indices and labels, each int64 `[num_records]`, in file order. Records without a label in
      the classes get -1.

    Raises:
      tf.errors.OpError: a file is damaged.
    """
    indices, labels = read_values(source, stream, "label", tf.constant(-1, tf.int64))
    return indices, np.where((labels >= 0) & (labels < source.num_classes), labels, -1)


def require_one_label(source: Source, purpose: str) -> None:
    """Raises ValueError for a multi-label source, whose examples are in no one class."""
    if source.multi_label:
        raise ValueError(
            f"{purpose} needs examples with one label each; those of {source.name} have any "
            "number. Take a source with one label, such as another TFDSSource.label_feature"
        )


def class_groups(
    labels: np.ndarray,
    class_weights: str | Sequence[float],
    class_names: Sequence[str] | None,
    num_classes: int,
) -> SamplingGroups:
    """One group a class.

    Args:
      labels: of every record, -1 to leave it out.
      class_weights: the share of each class in any unit; `"balanced"`: all classes that have
        examples alike; `"square_root"`: as the square root of their number of examples.
      class_names: for messages.
      num_classes: how many weights there must be.

    Raises:
      ValueError: another name, or another number of weights than classes.
    """
    names = class_names or range(num_classes)
    if isinstance(class_weights, str):
        check_named_weights(class_weights)
        counts = np.bincount(labels[labels >= 0], minlength=num_classes)
        weights = np.where(counts > 0, counts ** CLASS_WEIGHTS[class_weights], 0.0)
    else:
        weights = np.asarray(class_weights, np.float64)
        check_weights("class_weights", weights, num_classes, "classes")
    return SamplingGroups(labels, weights, [f"class {name}" for name in names])


def part_groups(source: Source, indices: np.ndarray) -> SamplingGroups:
    """One group for each part of a source whose parts have weights."""
    starts = np.cumsum([0] + [part.num_examples for part in source.parts[:-1]])
    groups = np.searchsorted(starts, indices, side="right") - 1
    return SamplingGroups(groups, source.weights, [part.name for part in source.parts])


def check_named_weights(class_weights: str) -> None:
    """Fails unless this is one of the names that stand for weights of classes."""
    if class_weights not in CLASS_WEIGHTS:
        raise ValueError(
            f"class_weights must be {' or '.join(map(repr, CLASS_WEIGHTS))} or one weight a "
            f"class, got {class_weights!r}"
        )


def check_weights(name: str, weights: np.ndarray, count: int, of: str) -> None:
    """Fails unless there are `count` weights, none negative and not all zero."""
    if len(weights) != count:
        raise ValueError(f"{len(weights)} {name} for {count} {of}")
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError(f"{name} must be at least 0 and not all 0, got {weights.tolist()}")
