"""Ridge regression of one-against-all targets in closed form: the solver of few-shot probes."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from vit_tf.evaluation.probes.feature_blocks import (
    STD_EPSILON,
    Standardization,
    row_blocks,
    standardization,
)
from vit_tf.evaluation.probes.linear_classifier import LinearClassifier
from vit_tf.evaluation.probes.support_sums import SupportSums

BIAS_COLUMN = 100.0  # big_vision/evaluators/fewshot_lsr.py: a bias that is hardly regularised


@dataclasses.dataclass(frozen=True)
class Ridge:
    """Ridge regression of targets in {-1, +1} on a standardised support set and a bias column.

    The definition of big_vision/evaluators/fewshot_lsr.py: the kernel
    `(X'X + l2 I)^-1 X'Y = X' (XX' + l2 I)^-1 Y` by whichever of the two systems is smaller. As
    standardised columns sum to zero, the bias column (100 everywhere, regularised like the others)
    is orthogonal to them and is solved apart; this keeps its eigenvalue, 10,000 times the number
    of examples, from drowning the others in rounding errors. Systems are solved in float64.

    Made by `fit_ridge`, or by `primal_ridge` from sums that several support sets share.

    Args:
      standardization: by mean and population deviation + 1e-5 of the support set.
      system: `X'X` [width, width] or `XX'` [examples, examples].
      targets: `X'Y` [width, classes] or `Y` [examples, classes].
      class_counts: [classes] examples of each in the support set.
      precision: "float32" or "float64", of the products that the system is made of.
      support: X [examples, width] if the system is `XX'`, else None.
    """

    standardization: Standardization
    system: np.ndarray
    targets: np.ndarray
    class_counts: np.ndarray
    precision: str
    support: np.ndarray | None = None

    def classifier(self, l2: float) -> LinearClassifier:
        """The solution for one l2.

        Raises:
          ValueError: if l2 is smaller than the rounding errors of the system.
        """
        rounding = np.finfo(self.precision).eps * self.system.diagonal().max()
        if l2 < rounding:
            raise ValueError(
                f"l2={l2:g} is below the rounding errors of these features' products in "
                f"{self.precision}, {rounding:.1g}; choose a larger one"
                + (' or precision="float64"' if self.precision == "float32" else "")
            )
        # NumPy throughout: the threads of SciPy's own BLAS would wait for work beside NumPy's.
        shifted = self.system.copy()
        np.fill_diagonal(shifted, shifted.diagonal() + l2)
        return self._of(np.linalg.solve(shifted, self.targets), l2)

    def path(self, l2_grid: Sequence[float]) -> Iterator[LinearClassifier]:
        """The solutions for many l2, from one eigendecomposition."""
        values, vectors, targets = self._spectrum
        for l2 in l2_grid:
            yield self._of(vectors @ (targets / (values + l2)[:, None]), l2)

    def leave_one_out(
        self, features: np.ndarray, rows: np.ndarray, labels: np.ndarray, l2_grid: Sequence[float]
    ) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
        """Scores of each support example by the ridge regression of all others, exactly.

        With h_i the leverage, `(fitted_i - h_i y_i) / (1 - h_i)` (Allen's PRESS): all from one
        eigendecomposition. What is held fixed are the mean and the deviation that standardise,
        which are those of the whole support set, and the bias column.

        Args:
          features: [examples, width] in which the support set is.
          rows: its indices there.
          labels: [rows] their classes.
          l2_grid: for which l2.

        Yields:
          An l2, positions in `rows`, and the scores [positions, classes]; block after block.
        """
        values, vectors, targets = self._spectrum
        for part in row_blocks(np.arange(len(rows)), 8 * max(targets.shape)):
            if self.support is None:
                projected = self.standardization(features[rows[part]], "float64") @ vectors
            else:
                projected = vectors[part]
            for l2 in l2_grid:
                shrunk = projected * ((1.0 if self.support is None else values) / (values + l2))
                leverage = (shrunk * projected).sum(1) + self._bias_weight(l2)
                scores = shrunk @ targets + self._bias(l2)
                scores += leverage[:, None]  # targets are -1, ...
                scores[np.arange(len(part)), labels[part]] -= 2 * leverage  # ... but one is +1
                yield l2, part, scores / (1 - leverage)[:, None]

    @functools.cached_property
    def _spectrum(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Eigenvalues and eigenvectors of the system, and the targets in their basis."""
        values, vectors = np.linalg.eigh(self.system)
        return np.maximum(values, 0), vectors, vectors.T @ self.targets

    def _of(self, solution: np.ndarray, l2: float) -> LinearClassifier:
        if self.support is not None:
            solution = self.support.T @ solution.astype(self.support.dtype)
        return LinearClassifier(self.standardization, solution, self._bias(l2))

    def _bias_weight(self, l2: float) -> float:
        """What the bias column makes of every target: its part of the hat matrix."""
        return BIAS_COLUMN**2 / (self.class_counts.sum() * BIAS_COLUMN**2 + l2)

    def _bias(self, l2: float) -> np.ndarray:
        return self._bias_weight(l2) * (2.0 * self.class_counts - self.class_counts.sum())


def primal_ridge(sums: SupportSums) -> Ridge:
    """Ridge regression by the system of features, [width, width]."""
    count, mean = sums.count, sums.total / sums.count
    gram = sums.gram - count * np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(gram.diagonal(), 0) / count) + STD_EPSILON
    gram /= deviation
    gram /= deviation[:, None]
    # X'Y = 2 X'[one-hot] - X'1, of which the last is zero as X is centred.
    targets = sums.class_totals - np.outer(sums.class_counts, mean)
    targets *= 2 / deviation
    standard = Standardization(sums.origin + mean, deviation)
    return Ridge(standard, gram, targets.T, sums.class_counts, sums.precision)


def dual_ridge(features: np.ndarray, labels: np.ndarray, num_classes: int, precision: str) -> Ridge:
    """Ridge regression by the system of examples, [examples, examples]."""
    standard = standardization(features, np.arange(len(features)))
    support = standard(features, precision)
    targets = np.full((len(labels), num_classes), -1.0)
    targets[np.arange(len(labels)), labels] = 1.0
    counts = np.bincount(labels, minlength=num_classes)
    system = (support @ support.T).astype("float64")
    return Ridge(standard, system, targets, counts, precision, support)


def fit_ridge(
    features: np.ndarray,
    rows: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    precision: str = "float64",
) -> Ridge:
    """Ridge regression of a support set by the smaller of its two systems.

    Args:
      features: [examples, width], which may be mapped from a file.
      rows: indices of the support set.
      labels: [rows] classes of the support set.
      num_classes: of all.
      precision: "float32" or "float64", of the products of features.

    Returns:
      What gives classifiers for any l2.
    """
    if len(rows) < features.shape[1]:
        return dual_ridge(features[rows], labels, num_classes, precision)
    sums = SupportSums(num_classes, precision)
    sums.add(features, rows, labels)
    return primal_ridge(sums)
