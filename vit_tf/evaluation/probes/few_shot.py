"""The few-shot probe: ridge regression on a few examples of each class."""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.special

from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.probes.base import Probe, ProbeResult
from vit_tf.evaluation.probes.feature_blocks import row_blocks
from vit_tf.evaluation.probes.held_out import hold_out
from vit_tf.evaluation.probes.linear_classifier import predict
from vit_tf.evaluation.probes.ridge import Ridge, dual_ridge, fit_ridge, primal_ridge
from vit_tf.evaluation.probes.shots import count_short_classes, nested_shots
from vit_tf.evaluation.probes.splits import check_finite, check_splits
from vit_tf.evaluation.probes.support_sums import SupportSums

_CHOICES = ("none", "leave_one_out", "held_out")
_PRECISIONS = ("float32", "float64")
_HELD_OUT_SHARE = 0.2
_CONFIDENCE = 0.95


class FewShotProbe(Probe):
    """Ridge regression on k examples of each class, as big_vision's few-shot evaluator.

    For each seed and each k, the support set is drawn (`nested_shots`), standardised by its own
    mean and deviation + 1e-5, given a bias column of 100 and regressed on targets in {-1, +1};
    the class of the highest score is predicted (big_vision/evaluators/fewshot_lsr.py). Seeds and
    support sets are the reference's, and so are the predictions.

    Unlike there, l2 can be chosen, and only by the support set:

    - `"leave_one_out"`: the l2 of the highest accuracy on support examples each left out in turn
      (exact, in closed form; the standardisation stays that of the whole support set).
    - `"held_out"`: a fifth of each class's support examples, at least one, is held out, l2 chosen
      by the accuracy on them, and the whole support set fitted with it.

    Of equally good l2 the one nearest to `l2` is taken. At one shot nothing can be left out
    and `l2` itself is used. Whatever chooses is computed in float64.

    The summary has the mean accuracy over seeds, `"10_shot"`, and with two seeds or more the
    bounds of Student's 95 % interval of that mean, `"10_shot_low"` and `"10_shot_high"`: what
    other draws of the support set would do, on the same test examples.

    Args:
      features: name of the features.
      shots: numbers of examples of each class, k. A class of fewer gives all that it has; a
        warning says so, and rows count such classes as `short_classes`.
      seeds: of the draws.
      l2: of the regression, 2^10 in the reference.
      choose_l2: `"none"`, `"leave_one_out"` or `"held_out"`.
      l2_grid: to choose from.
      precision: `"float32"` or `"float64"`, of the products of features and the scores; systems
        are solved in float64.

    Raises:
      ValueError: if an argument is out of range.
    """

    name = "few_shot"

    def __init__(
        self,
        features: str = "pre_logits",
        shots: Sequence[int] = (1, 5, 10, 25),
        seeds: Sequence[int] = (0, 1, 2),
        l2: float = 1024.0,
        choose_l2: str = "none",
        l2_grid: Sequence[float] = tuple(2.0**exponent for exponent in range(-6, 19, 2)),
        precision: str = "float32",
    ):
        if not shots or min(shots) < 1 or not seeds:
            raise ValueError(
                "shots must be numbers of at least 1, and seeds at least one seed; given "
                f"shots={shots}, seeds={seeds}"
            )
        if min((l2, *l2_grid)) <= 0 or not l2_grid:
            raise ValueError(f"l2 must be above 0; given l2={l2}, l2_grid={l2_grid}")
        for name, given, known in (
            ("choose_l2", choose_l2, _CHOICES),
            ("precision", precision, _PRECISIONS),
        ):
            if given not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; given {given!r}")
        self.features = (features,)
        self._shots = sorted(set(shots))
        self._seeds = tuple(seeds)
        self._l2 = l2
        self._choose_l2 = choose_l2
        self._l2_grid = tuple(l2_grid)
        self._precision = precision

    def evaluate(self, train: FeatureSet, test: FeatureSet) -> ProbeResult:
        """See the base class; raises ValueError also for features that are not finite."""
        check_splits(self, train, test, several_labels="LinearProbe")
        check_finite(self, test)
        self._tell_short_classes(train)
        rows = [row for seed in self._seeds for row in self._rows(train, test, seed)]
        rows.sort(key=lambda row: row["shots"])
        headline = 10 if 10 in self._shots else self._shots[-1]
        return ProbeResult(self._summary(rows), rows, f"{headline}_shot")

    def _rows(
        self, train: FeatureSet, test: FeatureSet, seed: int
    ) -> Iterator[dict[str, str | int | float]]:
        """Measurements of one seed."""
        (name,) = self.features
        supports = nested_shots(train.labels, self._shots, seed)
        check_finite(self, train, supports[self._shots[-1]])
        chosen, classifiers = [], []
        for ridge, rows in self._ridges(train, list(supports.values())):
            chosen.append(self._choose(ridge, train, rows, seed))
            classifiers.append(ridge.classifier(chosen[-1]))
        predictions = predict(classifiers, test.features[name], self._precision)
        for shots, l2, predicted in zip(self._shots, chosen, predictions, strict=True):
            yield {
                "probe": self.name,
                "features": name,
                "shots": shots,
                "seed": seed,
                "l2": l2,
                "short_classes": count_short_classes(train.labels, train.num_classes, shots),
                "accuracy": float((predicted == test.labels).mean()),
            }

    def _ridges(
        self, train: FeatureSet, supports: Sequence[np.ndarray]
    ) -> Iterator[tuple[Ridge, np.ndarray]]:
        """Regressions of nested support sets, which share the sums of their examples."""
        features = train.features[self.features[0]]
        precision = self._precision if self._choose_l2 == "none" else "float64"
        sums = SupportSums(train.num_classes, precision)
        summed = np.empty(0, np.int64)
        for rows in supports:
            labels = train.labels[rows]
            if len(rows) < features.shape[1]:
                yield dual_ridge(features[rows], labels, train.num_classes, precision), rows
                continue
            new = np.setdiff1d(rows, summed)
            sums.add(features, new, train.labels[new])
            summed = rows
            yield primal_ridge(sums), rows

    def _choose(self, ridge: Ridge, train: FeatureSet, rows: np.ndarray, seed: int) -> float:
        """The l2 of one support set."""
        labels = train.labels[rows]
        if self._choose_l2 == "none" or np.bincount(labels).max() < 2:
            return self._l2
        features = train.features[self.features[0]]
        right = dict.fromkeys(self._l2_grid, 0)
        if self._choose_l2 == "leave_one_out":
            for l2, part, scores in ridge.leave_one_out(features, rows, labels, self._l2_grid):
                right[l2] += int((scores.argmax(1) == labels[part]).sum())
        else:
            learn, held = hold_out(labels, _HELD_OUT_SHARE, seed)
            part = fit_ridge(features, rows[learn], labels[learn], train.num_classes, "float64")
            for l2, classifier in zip(self._l2_grid, part.path(self._l2_grid), strict=True):
                for block in row_blocks(rows[held], features.shape[1]):
                    (predicted,) = predict([classifier], features[block], "float64")
                    right[l2] += int((predicted == train.labels[block]).sum())
        return max(right, key=lambda l2: (right[l2], -abs(np.log(l2 / self._l2))))

    def _summary(self, rows: Sequence[dict[str, str | int | float]]) -> dict[str, float]:
        summary = {}
        for shots in self._shots:
            accuracies = [row["accuracy"] for row in rows if row["shots"] == shots]
            summary[f"{shots}_shot"] = mean = float(np.mean(accuracies))
            if (count := len(accuracies)) > 1:
                quantile = scipy.special.stdtrit(count - 1, (1 + _CONFIDENCE) / 2)
                half = quantile * np.std(accuracies, ddof=1) / np.sqrt(count)
                summary[f"{shots}_shot_low"] = max(0.0, float(mean - half))
                summary[f"{shots}_shot_high"] = min(1.0, float(mean + half))
        return summary

    def _tell_short_classes(self, train: FeatureSet) -> None:
        for shots in self._shots:
            if short := count_short_classes(train.labels, train.num_classes, shots):
                warnings.warn(
                    f"FewShotProbe: {short} of {train.num_classes} classes of "
                    f"{train.name or 'the training split'} have fewer than {shots} examples and "
                    "give all that they have",
                    stacklevel=3,
                )
