"""Classification accuracy on a split, every example once, with what is confused with what."""

import collections
import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vit_tf.evaluation.classification import dense_targets, in_top_k, labels_of


@dataclasses.dataclass
class Accuracy:
    """What was right and wrong on a split.

    Attributes:
      num_classes: classes of the data.
      class_names: a name a class, if known.
      multi_label: whether examples have any number of labels; `accuracy` is then ReaL accuracy
        (Beyer et al., 2020): the predicted class is one of them.
      examples: how many were counted.
      left_out: how many have no label, and are in none of the figures.
      right: how many were right.
      in_top_5: how many had a label among the five likeliest classes; None if the model has no
        more than five.
      of_class: int [num_classes], how many have this label.
      right_of_class: int [num_classes], how many of them were right.
      confusion: (label, predicted class) -> how many; empty of several labels.
    """

    num_classes: int
    class_names: Sequence[str] | None = None
    multi_label: bool = False
    examples: int = 0
    left_out: int = 0
    right: int = 0
    in_top_5: int | None = None
    of_class: np.ndarray = dataclasses.field(init=False)
    right_of_class: np.ndarray = dataclasses.field(init=False)
    confusion: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def __post_init__(self):
        self.of_class = np.zeros(self.num_classes, np.int64)
        self.right_of_class = np.zeros(self.num_classes, np.int64)

    def figures(self) -> dict[str, float | int]:
        """`"accuracy"`, `"top5_accuracy"` (if there is one), `"mean_class_accuracy"` and counts."""
        present = self.of_class > 0
        by_class = self.right_of_class[present] / self.of_class[present]
        figures: dict[str, float | int] = {"accuracy": self.right / self.examples}
        if self.in_top_5 is not None:
            figures["top5_accuracy"] = self.in_top_5 / self.examples
        figures["mean_class_accuracy"] = float(np.mean(by_class))
        figures["examples"] = self.examples
        if self.left_out:
            figures["left_out_examples"] = self.left_out
        return figures

    def details(self) -> dict[str, Any]:
        """Per class and confusion, as JSON has them.

        Returns:
          `"classes"`: of each class its number, name, examples and accuracy (None without any);
          `"confusion"`: `[label, predicted class, examples]` where that is not 0, the commonest
          first. Of several labels there is no confusion.
        """
        names = self.class_names or [str(number) for number in range(self.num_classes)]
        classes = [
            {
                "class": number,
                "name": names[number],
                "examples": int(count),
                "accuracy": float(right / count) if count else None,
            }
            for number, (count, right) in enumerate(
                zip(self.of_class, self.right_of_class, strict=True)
            )
        ]
        pairs = sorted(self.confusion.items(), key=lambda item: (-item[1], item[0]))
        return {"classes": classes, "confusion": [[*pair, count] for pair, count in pairs]}

    def add(self, labels: np.ndarray, predicted: np.ndarray, top_1: np.ndarray) -> None:
        """Counts a batch of examples that have labels.

        Args:
          labels: bool [batch, num_classes or more].
          predicted: int [batch], the likeliest class.
          top_1: bool [batch], whether it counts as right (see `in_top_k`).
        """
        labels = labels[:, : self.num_classes]
        self.examples += len(labels)
        self.right += int(top_1.sum())
        self.of_class += labels.sum(axis=0)
        self.right_of_class += labels[top_1].sum(axis=0)
        if not self.multi_label:
            pairs = zip(labels.argmax(axis=1).tolist(), predicted.tolist(), strict=True)
            self.confusion.update(pairs)


def measure_accuracy(
    logits: Callable[[tf.Tensor], tf.Tensor],
    batches: tf.data.Dataset,
    num_classes: int,
    class_names: Sequence[str] | None = None,
) -> Accuracy:
    """Classifies every example of a data set, on one device.

    Args:
      logits: a batch's `"image"` -> [batch, classes], at least `num_classes`.
      batches: dicts of `"image"`, `"label"` (integers [batch], or targets [batch, num_classes])
        and `"mask"`, 0 for what is no example.
      num_classes: of the data.
      class_names: a name a class.

    Returns:
      The counts.

    Raises:
      ValueError: if the model has fewer classes than the data, or no example has a label.
    """
    several = batches.element_spec["label"].shape.rank == 2
    counts = Accuracy(num_classes, class_names, multi_label=several)

    def judge(images: tf.Tensor, label: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = tf.cast(logits(images), tf.float32)
        if scores.shape[-1] < num_classes:
            raise ValueError(
                f"the data has {num_classes} classes and the model {scores.shape[-1]}; name data "
                "or a model with the same classes"
            )
        if scores.shape[-1] > num_classes:  # said once: this is traced once
            warnings.warn(
                f"the data has {num_classes} classes and the model {scores.shape[-1]}: they are "
                f"taken for the first {num_classes} of the model",
                stacklevel=2,
            )
        labels = labels_of(dense_targets(label, scores.shape[-1]))
        judged = {"labels": labels, "predicted": tf.argmax(scores, axis=-1)}
        judged["1"] = in_top_k(labels, scores, 1) > 0
        if scores.shape[-1] > 5:
            judged["5"] = in_top_k(labels, scores, 5) > 0
        return judged

    for batch in batches:
        real = batch["mask"].numpy() > 0
        judged = {k: v.numpy() for k, v in judge(batch["image"], batch["label"]).items()}
        labelled = real & judged["labels"].any(axis=1)
        counts.left_out += int((real & ~labelled).sum())
        kept = {name: value[labelled] for name, value in judged.items()}
        counts.add(kept["labels"], kept["predicted"], kept["1"])
        if "5" in kept:
            counts.in_top_5 = (counts.in_top_5 or 0) + int(kept["5"].sum())
    if not counts.examples:
        raise ValueError(f"there is no example with a label ({counts.left_out} have none)")
    return counts
