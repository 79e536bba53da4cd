"""Mean average precision: how well scores of several labels rank the examples of each class."""

import numpy as np


def mean_average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """The mean, over classes that have positives, of the area under precision over recall.

    Precision is summed at every distinct score, weighed by the recall it adds; nothing is
    interpolated, and equal scores count together (as scikit-learn's `average_precision_score`).

    Args:
      targets: [examples, classes]; those of at least 0.5 are positives.
      scores: [examples, classes], any monotone function of the probability.

    Returns:
      In [0, 1]; NaN if no class has a positive.
    """
    positives = targets >= 0.5
    present = np.flatnonzero(positives.any(axis=0))
    precisions = [_average_precision(positives[:, k], scores[:, k]) for k in present]
    return float(np.mean(precisions)) if precisions else float("nan")


def _average_precision(positives: np.ndarray, scores: np.ndarray) -> float:
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(positives[order])
    # The last place of each run of equal scores: up to there all are retrieved, or none is.
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)
    added = np.diff(found[ends], prepend=0)
    return float(np.sum(added * found[ends] / (ends + 1)) / found[-1])
