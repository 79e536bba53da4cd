"""The nearest-neighbour probe: classes of the most similar training examples vote."""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.probes.base import Probe, ProbeResult
from vit_tf.evaluation.probes.splits import check_finite, check_splits

_TRAIN_ROWS = 16384  # of similarities at a time: 64 MiB
_TEST_ROWS = 1024
_VOTES = 2**22  # test examples x classes at a time
_NORM_EPSILON = 1e-12  # the least norm to divide by, as torch.nn.functional.normalize has it


class KNNProbe(Probe):
    """k nearest neighbours by cosine similarity, their votes weighted by `exp(similarity / T)`.

    The protocol of DINO (arXiv:2104.14294, appendix F.1; eval_knn.py) and DINOv2: no training,
    nothing to tune. All k come from one search, which is exact. Of equally similar training
    examples the earlier one is nearer; of classes with equal votes the first is predicted.

    The summary has the accuracy for each k, `"20_nn"`.

    Args:
      features: name of the features.
      k: numbers of neighbours. One that exceeds the training split takes all of it; a warning says
        so, and rows say how many took part as `neighbours`.
      temperature: T.

    Raises:
      ValueError: if an argument is out of range.
    """

    name = "knn"

    def __init__(
        self,
        features: str = "pre_logits",
        k: Sequence[int] = (10, 20, 100, 200),
        temperature: float = 0.07,
    ):
        if not k or min(k) < 1:
            raise ValueError(f"k must be numbers of at least 1; given {k}")
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0; given {temperature}")
        self.features = (features,)
        self._k = sorted(set(k))
        self._temperature = temperature

    def evaluate(self, train: FeatureSet, test: FeatureSet) -> ProbeResult:
        """See the base class; raises ValueError also for features that are not finite."""
        check_splits(self, train, test, several_labels="LinearProbe")
        check_finite(self, train)
        check_finite(self, test)
        (name,) = self.features
        used = [min(k, len(train)) for k in self._k]
        if used[-1] < self._k[-1]:
            warnings.warn(
                f"KNNProbe: {train.name or 'the training split'} has {len(train)} examples, all of "
                f"which vote for k = {', '.join(str(k) for k in self._k if k > len(train))}",
                stacklevel=2,
            )
        similarities, indices = nearest(train.features[name], test.features[name], used[-1])
        weights = np.exp((similarities - similarities[:, :1]) / self._temperature)
        predictions = vote(weights, train.labels[indices], used, train.num_classes)
        rows = [
            {
                "probe": self.name,
                "features": name,
                "k": k,
                "neighbours": neighbours,
                "accuracy": float((predicted == test.labels).mean()),
            }
            for k, neighbours, predicted in zip(self._k, used, predictions, strict=True)
        ]
        summary = {f"{row['k']}_nn": row["accuracy"] for row in rows}
        return ProbeResult(summary, rows, f"{20 if 20 in self._k else self._k[0]}_nn")


def vote(
    weights: np.ndarray, labels: np.ndarray, counts: Sequence[int], num_classes: int
) -> np.ndarray:
    """Classes with the most votes of the first neighbours, of equal ones the first class.

    Args:
      weights: [examples, neighbours] of the votes.
      labels: [examples, neighbours] what is voted for.
      counts: of the neighbours that vote, rising.
      num_classes: of all.

    Returns:
      Integers [counts, examples].
    """
    predictions = np.empty((len(counts), len(weights)), np.int64)
    for part in _parts(len(weights), max(1, _VOTES // num_classes)):
        length = len(weights[part])
        votes = np.zeros(length * num_classes)
        places = np.arange(length)[:, None] * num_classes + labels[part]
        for number, (first, last) in enumerate(zip((0, *counts), counts, strict=False)):
            new = places[:, first:last].ravel()
            votes += np.bincount(new, weights[part, first:last].ravel(), len(votes))
            predictions[number, part] = votes.reshape(length, num_classes).argmax(1)
    return predictions


def nearest(train: np.ndarray, test: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest training examples of each test example by cosine similarity, exactly.

    Both are read in blocks. A block's similarities are compared with each example's k-th so far,
    and only what exceeds it is looked at further: after the first block that is little.

    Args:
      train: [training examples, width], which may be mapped from a file.
      test: [test examples, width], likewise.
      k: how many, no more than there are training examples.

    Returns:
      Similarities [test examples, k], falling, and indices of training examples [test examples, k];
      of equal similarities the lower index comes first.
    """
    similarities = np.full((len(test), k), -np.inf, np.float32)
    indices = np.zeros((len(test), k), np.int64)
    buffer = np.empty((min(_TEST_ROWS, len(test)), min(_TRAIN_ROWS, len(train))), np.float32)
    for columns in _parts(len(train), _TRAIN_ROWS):
        keys = _normalized(train[columns])
        for rows in _parts(len(test), _TEST_ROWS):
            queries = test[rows].astype(np.float32, copy=False)
            found = buffer.ravel()[: len(queries) * len(keys)].reshape(len(queries), len(keys))
            # Not divided by the norms of queries: the order within a row is the same.
            np.matmul(queries, keys.T, out=found)
            _merge(similarities[rows], indices[rows], found, columns.start)
    for rows in _parts(len(test), _TEST_ROWS):
        similarities[rows] /= _norms(test[rows])
    return similarities, indices


def _merge(best: np.ndarray, indices: np.ndarray, found: np.ndarray, first_index: int) -> None:
    """Puts what is among the k best of each row into `best` and `indices`."""
    k, width = best.shape[1], found.shape[1]
    if np.isneginf(best[:, -1]).any() and width > k:
        candidates = found >= np.partition(found, width - k, axis=1)[:, [width - k]]
    else:
        candidates = found > best[:, -1:]
    flat = np.flatnonzero(candidates)
    rows, columns = np.divmod(flat, width)
    counts = np.bincount(rows, minlength=len(best))
    places = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts) + k
    values = np.full((len(best), k + counts.max(initial=0)), -np.inf, np.float32)
    values[:, :k] = best
    values[rows, places] = found.ravel()[flat]
    of_values = np.zeros(values.shape, np.int64)
    of_values[:, :k] = indices
    of_values[rows, places] = columns + first_index
    # Stable, and earlier training examples come first: of equal ones they stay ahead.
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]
    best[:] = np.take_along_axis(values, order, 1)
    indices[:] = np.take_along_axis(of_values, order, 1)


def _parts(count: int, length: int) -> Iterator[slice]:
    for first in range(0, count, length):
        yield slice(first, min(first + length, count))


def _norms(features: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(features.astype(np.float32, copy=False), axis=1, keepdims=True)
    return np.maximum(norms, _NORM_EPSILON)


def _normalized(features: np.ndarray) -> np.ndarray:
    return features.astype(np.float32, copy=False) / _norms(features)
