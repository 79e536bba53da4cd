"""Checks that two splits fit each other and a probe, with messages that say what to do."""

import numpy as np

from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.probes.base import Probe
from vit_tf.evaluation.probes.feature_blocks import row_blocks
from vit_tf.suggestions import did_you_mean


def check_splits(
    probe: Probe, train: FeatureSet, test: FeatureSet, several_labels: str | None = None
) -> None:
    """Checks what `Probe.evaluate` is given.

    Args:
      probe: whose features both splits must have.
      train: the split to learn from.
      test: the split to measure on.
      several_labels: what to name to those who give examples of several labels to a probe that
        takes one label each; None for a probe that takes both.

    Raises:
      ValueError: if features are missing, widths or numbers of classes differ, a split is empty,
        or labels are of another form or out of range.
    """
    of_probe = type(probe).__name__
    for split, default in ((train, "the training split"), (test, "the test split")):
        name = split.name or default
        if not len(split):
            raise ValueError(f"{of_probe}: {name} has no examples")
        for feature in probe.features:
            if feature not in split.features:
                raise ValueError(
                    f"{of_probe}: {name} has no features {feature!r}, but "
                    f"{', '.join(map(repr, split.features))}."
                    f"{did_you_mean(feature, split.features)}"
                )
        _check_labels(of_probe, name, split, several_labels)
    if train.num_classes != test.num_classes or train.labels.ndim != test.labels.ndim:
        raise ValueError(
            f"{of_probe}: the splits must have the same classes; {train.name or 'train'} has "
            f"{train.num_classes} and {test.name or 'test'} {test.num_classes}, with labels "
            f"{list(train.labels.shape)} and {list(test.labels.shape)}"
        )
    for feature in probe.features:
        widths = [split.features[feature].shape[1] for split in (train, test)]
        if widths[0] != widths[1]:
            raise ValueError(
                f"{of_probe}: {feature!r} must be equally wide in both splits; given "
                f"{widths[0]} and {widths[1]}"
            )


def _check_labels(of_probe: str, name: str, split: FeatureSet, several_labels: str | None) -> None:
    labels = split.labels
    if labels.ndim == 2 and several_labels:
        raise ValueError(
            f"{of_probe}: {name} has float targets {list(labels.shape)}, and this probe takes one "
            f"label an example; {several_labels} takes several"
        )
    if labels.ndim == 2:
        if labels.shape[1] != split.num_classes:
            raise ValueError(
                f"{of_probe}: {name} has targets {list(labels.shape)} for {split.num_classes} "
                "classes"
            )
    elif not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{of_probe}: labels of {name} must be integers [examples] or float targets "
            f"[examples, classes]; given {labels.dtype} {list(labels.shape)}"
        )
    elif labels.min() < 0 or labels.max() >= split.num_classes:
        raise ValueError(
            f"{of_probe}: labels of {name} must be in [0, {split.num_classes}); given "
            f"{labels.min()} to {labels.max()}"
        )


def check_finite(probe: Probe, split: FeatureSet, rows: np.ndarray | None = None) -> None:
    """Checks that a probe's features hold neither NaN nor infinity, reading them in blocks.

    Args:
      probe: whose features to look at.
      split: which has them.
      rows: indices of the examples that matter; None for all.

    Raises:
      ValueError: names the features, the split and the first example that has such a value.
    """
    rows = np.arange(len(split)) if rows is None else np.sort(rows)
    for feature in probe.features:
        values = split.features[feature]
        for block in row_blocks(rows, values.shape[1]):
            finite = np.isfinite(values[block]).all(1)
            if not finite.all():
                raise ValueError(
                    f"{type(probe).__name__}: features {feature!r} of {split.name or 'a split'} "
                    f"are not finite (NaN or infinite) at example {block[finite.argmin()]}; look "
                    "at the model and the preprocessing that made them"
                )
