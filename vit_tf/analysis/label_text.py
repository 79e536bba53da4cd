"""What an example is labelled with, in words."""

from collections.abc import Sequence

import numpy as np


def label_set(label: int | np.ndarray) -> list[int]:
    """The classes that an example is labelled with.

    Args:
      label: a class number, or targets [classes], of which the largest ones count if above 0.

    Returns:
      Class numbers, ascending; none for an example without labels.
    """
    label = np.asarray(label)
    if label.ndim == 0:
        return [int(label)]
    return np.flatnonzero((label == label.max()) & (label > 0)).tolist()


def label_text(label: int | np.ndarray, class_names: Sequence[str], most: int | None = None) -> str:
    """Names of the classes that an example is labelled with, such as `cat | dog`.

    Args:
      label: see `label_set`.
      class_names: a name a class.
      most: how many are named; the others are counted. Default: all.
    """
    names = [class_names[number] for number in label_set(label)]
    if most is not None and len(names) > most:
        names[most:] = [f"{len(names) - most} more"]
    return " | ".join(names) or "no label"
