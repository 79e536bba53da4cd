"""Multinomial logistic regression on frozen features, its penalty chosen by held-out examples."""

import warnings
from collections.abc import Sequence

import numpy as np

from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.probes.base import Probe, ProbeResult
from vit_tf.evaluation.probes.feature_blocks import standardization
from vit_tf.evaluation.probes.held_out import hold_out
from vit_tf.evaluation.probes.softmax_regression import SoftmaxRegression, SoftmaxRegressionProblem
from vit_tf.evaluation.probes.splits import check_finite, check_splits

# The range of DINOv2's 45 values (arXiv:2304.07193, dinov2/eval/log_regression.py), one a decade.
_C = tuple(10.0**exponent for exponent in range(-6, 6))


class LogisticProbe(Probe):
    """Logistic regression with an L2 penalty: the linear evaluation of CLIP and of DINOv2.

    The objective is scikit-learn's `LogisticRegression(C=c)`, minimised by L-BFGS (CLIP,
    arXiv:2103.00020, appendix A.3). Every `c` of the grid is fitted to a part of the training
    split, each from the solution of the smaller one before it; the best on the held-out rest (the
    smallest of equals) is fitted again to the whole training split and measured on the test split.

    Args:
      features: name of the features.
      c: strengths of the data over the penalty, the sum over examples weighed against it.
      held_out: share of each class's training examples to choose `c` by; unused for a single `c`.
      standardize: whether features are brought to mean 0 and deviation 1 by the statistics of the
        examples learnt from. CLIP and DINOv2 do not; it makes the same grid fit any model and
        layer, and needs fewer iterations.
      max_iter: iterations of L-BFGS for each fit.
      tolerance: the largest gradient at which a fit has converged (scikit-learn's `tol`).
      precision: `"float32"` or `"float64"`.
      seed: of the draw of held-out examples.

    Raises:
      ValueError: if an argument is out of range.
    """

    name = "logistic"

    def __init__(
        self,
        features: str = "pre_logits",
        c: Sequence[float] = _C,
        held_out: float = 0.1,
        standardize: bool = True,
        max_iter: int = 1000,
        tolerance: float = 1e-4,
        precision: str = "float32",
        seed: int = 0,
    ):
        self.c = sorted({float(value) for value in np.atleast_1d(c)})
        if not self.c or self.c[0] <= 0:
            raise ValueError(f"c must be one or more values above 0; given {c}")
        if precision not in ("float32", "float64"):
            raise ValueError(f"precision must be 'float32' or 'float64'; given {precision!r}")
        self.features = (features,)
        self.held_out = held_out
        self.standardize = standardize
        self.max_iter = max_iter
        self.tolerance = tolerance
        self.precision = precision
        self.seed = seed

    def evaluate(self, train: FeatureSet, test: FeatureSet) -> ProbeResult:
        """Chooses `c` within the training split, fits to all of it and measures the test split.

        Returns:
          `summary`: `accuracy` (the headline), the chosen `c` and, if there was a choice, its
          `held_out_accuracy`. `rows`: one a `c`; the chosen one's has the test `accuracy`.

        Raises:
          ValueError: for labels that are not integers, fewer than two classes, or splits that do
            not fit each other.
        """
        check_splits(self, train, test, "LinearProbe")
        for split in (train, test):
            check_finite(self, split)
        (feature,) = self.features
        rows, starts = self._compare(train)
        best = max(range(len(rows)), key=lambda place: rows[place].get("held_out_accuracy", 0.0))
        c, every = self.c[best], np.arange(len(train))
        fitted = self._fit(train, every, [c], starts[best])[0]
        accuracy = fitted.accuracy(test.features[feature], test.labels, np.arange(len(test)))
        rows[best].update(chosen=1, accuracy=accuracy)
        summary = {"accuracy": accuracy, "c": c}
        if "held_out_accuracy" in rows[best]:
            summary["held_out_accuracy"] = rows[best]["held_out_accuracy"]
        return ProbeResult(summary, rows, "accuracy")

    def _compare(
        self, train: FeatureSet
    ) -> tuple[list[dict[str, str | int | float]], list[SoftmaxRegression | None]]:
        """A row for each `c`, and what was fitted without the held-out examples for it."""
        if len(self.c) == 1:
            return [self._row(self.c[0])], [None]
        learnt, held_out = hold_out(train.labels, self.held_out, self.seed)
        solutions = self._fit(train, learnt, self.c)
        rows = []
        for c, fitted in zip(self.c, solutions, strict=True):
            share = fitted.accuracy(train.features[self.features[0]], train.labels, held_out)
            row = {"held_out_accuracy": share, "iterations": fitted.iterations}
            rows.append(self._row(c) | row | {"converged": int(fitted.converged)})
        return rows, solutions

    def _row(self, c: float) -> dict[str, str | int | float]:
        return {"probe": self.name, "features": self.features[0], "c": c, "chosen": 0}

    def _fit(
        self,
        train: FeatureSet,
        rows: np.ndarray,
        strengths: Sequence[float],
        start: SoftmaxRegression | None = None,
    ) -> list[SoftmaxRegression]:
        """Solutions of rising strengths for some rows, each begun at the one before it."""
        features = train.features[self.features[0]]
        standardize = standardization(features, rows, on=self.standardize)
        problem = SoftmaxRegressionProblem(
            features, train.labels, rows, standardize, self.precision
        )
        if len(problem.classes) < 2:
            raise ValueError(
                f"{train.name or 'the training split'} has examples of "
                f"{len(problem.classes)} class; a probe needs two"
            )
        solutions: list[SoftmaxRegression] = []
        for c in strengths:
            start = problem.solve(c, start, self.max_iter, self.tolerance)
            solutions.append(start)
        stopped = [f"{c:g}" for c, s in zip(strengths, solutions, strict=True) if not s.converged]
        if stopped:
            warnings.warn(
                f"LogisticProbe: L-BFGS stopped before its gradient fell to {self.tolerance:g} for "
                f"c = {', '.join(stopped)}; raise max_iter (now {self.max_iter}) or tolerance, or "
                "set precision to 'float64'",
                stacklevel=2,
            )
        return solutions
