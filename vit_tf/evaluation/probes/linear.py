"""Linear classifiers trained by SGD, many learning rates and features at once."""

from collections.abc import Sequence

import numpy as np

from vit_tf.evaluation.average_precision import mean_average_precision
from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.probes.base import Probe, ProbeResult
from vit_tf.evaluation.probes.feature_blocks import standardization
from vit_tf.evaluation.probes.held_out import hold_out
from vit_tf.evaluation.probes.linear_heads import LinearHeads
from vit_tf.evaluation.probes.splits import check_finite, check_splits

# DINOv2's (dinov2/eval/linear.py): for a batch of 256, scaled with the batch size.
_LEARNING_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
_RATES_BATCH_SIZE = 256


class LinearProbe(Probe):
    """The linear evaluation of DINOv2 (arXiv:2304.07193, appendix B.3), on cached features.

    A head for every pair of a learning rate and a feature is trained by SGD with momentum and a
    cosine to zero, all in one pass over the data, on a part of the training split. The head that is
    best on the held-out rest (the first of equals) is trained again, alone, on the whole training
    split and measured on the test split. DINOv2 chooses on the split it reports. There is no
    augmentation, as features are computed once.

    Protocols of others, in these words: MoCo v3 `batch_size=1024, epochs=90` and a sweep of the
    rate (for ViT-S 3, for the batch of 256); BYOL `nesterov=True, epochs=80`; EsViT the
    concatenation of the last four blocks as a feature.

    Args:
      features: a name, or several, each a choice; `"a+b"` concatenates.
      learning_rates: of the first step for a batch of 256, one a head of each feature; they are
        multiplied by `batch_size / 256`.
      batch_size: examples of a step; the whole training split if that has fewer.
      steps: of training.
      epochs: passes over the training split instead of `steps`.
      momentum: of SGD.
      nesterov: whether the momentum is Nesterov's.
      weight_decay: added to the gradient, times the kernel; the bias has none.
      standardize: whether features are brought to mean 0 and deviation 1 by the statistics of the
        examples learnt from, as batch normalisation without parameters before MAE's head does;
        False for DINOv2's protocol, whose features are layer-normalised.
      held_out: share of each class's training examples to choose by; unused for a single head.
      seed: of the held-out examples and of the order of the others.
      jit_compile: whether XLA compiles the step.

    Examples of several labels (float targets) have a sigmoid loss, and mean average precision takes
    accuracy's place.

    Raises:
      ValueError: if an argument is out of range.
    """

    name = "linear"

    def __init__(
        self,
        features: str | Sequence[str] = ("pre_logits",),
        learning_rates: Sequence[float] = _LEARNING_RATES,
        batch_size: int = 1024,
        steps: int = 12_500,
        epochs: float | None = None,
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        standardize: bool = True,
        held_out: float = 0.1,
        seed: int = 0,
        jit_compile: bool = False,
    ):
        rates = [float(rate) for rate in np.atleast_1d(learning_rates)]
        if not rates or min(rates) <= 0:
            raise ValueError(f"learning_rates must be above 0; given {learning_rates}")
        if batch_size < 1 or steps < 1 or (epochs is not None and epochs <= 0):
            raise ValueError(
                "batch_size, steps and epochs must be above 0; given "
                f"{batch_size}, {steps} and {epochs}"
            )
        self.features = (features,) if isinstance(features, str) else tuple(features)
        if not self.features:
            raise ValueError("features names no feature; give one or more, such as 'pre_logits'")
        self.learning_rates = rates
        self.batch_size = batch_size
        self.steps = steps
        self.epochs = epochs
        self.standardize = standardize
        self.held_out = held_out
        self.seed = seed
        self._sgd = {
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "jit_compile": jit_compile,
        }

    def evaluate(self, train: FeatureSet, test: FeatureSet) -> ProbeResult:
        """Chooses a head within the training split, trains it on all of that, measures the test.

        Returns:
          `summary`: `accuracy` (or `mean_average_precision`), the headline; the chosen
          `learning_rate` and, if there was a choice, its `held_out_accuracy`. `rows`: one a head;
          the chosen one's has the test `accuracy`.

        Raises:
          ValueError: for splits that do not fit each other, or if every head diverged.
        """
        check_splits(self, train, test)
        for split in (train, test):
            check_finite(self, split)
        metric = "accuracy" if train.labels.ndim == 1 else "mean_average_precision"
        rows = [
            {"probe": self.name, "features": name, "learning_rate": rate, "chosen": 0}
            for name in self.features
            for rate in self.learning_rates
        ]
        if len(rows) > 1:
            learnt, held_out = hold_out(train.labels, self.held_out, self.seed)
            heads = self._train(train, learnt, self.features, self.learning_rates)
            for row in rows:
                place = self.learning_rates.index(row["learning_rate"])
                value = _measure(heads, row["features"], place, train, held_out)
                row[f"held_out_{metric}"] = value
        chosen = max(rows, key=lambda row: row.get(f"held_out_{metric}", 0.0))
        feature, rate = chosen["features"], chosen["learning_rate"]
        head = self._train(train, np.arange(len(train)), [feature], [rate])
        if not all(np.isfinite(weight).all() for weight in head.weights(feature)):
            raise ValueError(
                f"LinearProbe: training diverged at the learning rate {rate:g} on {feature!r}; "
                "give lower learning_rates, or standardize=True"
            )
        value = _measure(head, feature, 0, test, np.arange(len(test)))
        chosen.update({"chosen": 1, metric: value})
        summary = {metric: value, "learning_rate": rate}
        if f"held_out_{metric}" in chosen:
            summary[f"held_out_{metric}"] = chosen[f"held_out_{metric}"]
        return ProbeResult(summary, rows, metric)

    def _train(
        self, train: FeatureSet, rows: np.ndarray, names: Sequence[str], rates: Sequence[float]
    ) -> LinearHeads:
        """Heads of all pairs of names and rates, trained on some rows."""
        batch_size = min(self.batch_size, len(rows))
        scaled = [rate * batch_size / _RATES_BATCH_SIZE for rate in rates]
        heads = LinearHeads(
            {name: standardization(train.features[name], rows, self.standardize) for name in names},
            train.num_classes,
            scaled,
            several_labels=train.labels.ndim == 2,
            **self._sgd,
        )
        steps = self.steps
        if self.epochs is not None:
            steps = max(1, round(self.epochs * len(rows) / batch_size))
        values = {name: train.features[name] for name in names}
        heads.train(values, train.labels, rows, batch_size, steps, self.seed)
        return heads


def _measure(
    heads: LinearHeads, name: str, head: int, split: FeatureSet, rows: np.ndarray
) -> float:
    """Accuracy or mean average precision of a head; 0 for one that has diverged."""
    found = heads.scores(split.features, name, head, rows)
    if split.labels.ndim == 2:
        scores = np.concatenate([scores for _, scores in found])
        if not np.isfinite(scores).all():
            return 0.0
        return mean_average_precision(split.labels[rows], scores)
    right = 0
    for block, scores in found:
        finite = np.isfinite(scores).all(axis=1)
        right += int(np.sum(finite & (scores.argmax(axis=1) == split.labels[block])))
    return right / len(rows)
