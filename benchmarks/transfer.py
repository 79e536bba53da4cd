"""Speed of evaluation by transfer, side by side with what is in use.

  make benchmark-transfer

Every round measures both sides of each comparison, one after the other; a ratio is that of seconds
of the clock within a round, and the median of the rounds is reported. Both sides use all cores.

  few_shot   `FewShotProbe` on 1000 classes x {1, 5, 10, 25} shots x 1024 features x 3 seeds and
             50,000 test examples; against scikit-learn's `StandardScaler` and `RidgeClassifier`,
             fitted to each of the 12 support sets and predicting the test examples
  knn        `KNNProbe`'s search and votes for k = 10, 20, 100, 200 among 50,000 training examples
             of 768 features for 10,000 test examples; against scikit-learn's
             `KNeighborsClassifier(200, metric="cosine", algorithm="brute")` with DINO's weights

Features are float32 on both sides, drawn at random about the centres of their classes.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
from results_file import describe_machine, describe_versions, write_result
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.probes import FewShotProbe, KNNProbe
from vit_tf.evaluation.probes.shots import nested_shots

_SHOTS = (1, 5, 10, 25)
_SEEDS = (0, 1, 2)
_NEIGHBOURS = (10, 20, 100, 200)
_TEMPERATURE = 0.07


def _features(
    num_classes: int, examples: int, width: int, noise: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features about the centres of their classes, which are the same for every seed."""
    centres = np.random.default_rng(0).standard_normal((num_classes, width), np.float32)
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(examples) % num_classes)
    features = noise * rng.standard_normal((examples, width), np.float32)
    return features + centres[labels], labels


def _splits(num_classes: int, train: int, test: int, width: int) -> tuple[FeatureSet, FeatureSet]:
    noise = 4.0  # hard enough that accuracies are neither chance nor 100 %
    return tuple(
        FeatureSet({"pre_logits": features}, labels, num_classes)
        for features, labels in (
            _features(num_classes, train, width, noise, seed=1),
            _features(num_classes, test, width, noise, seed=2),
        )
    )


def few_shot() -> Callable[[], dict[str, float]]:
    """A round of `few_shot_vs_sklearn`."""
    train, test = _splits(1000, 30_000, 50_000, 1024)
    probe = FewShotProbe(shots=_SHOTS, seeds=_SEEDS)

    def ours() -> list[float]:
        rows = probe.evaluate(train, test).rows
        return [row["accuracy"] for row in rows]

    def sklearn() -> list[float]:
        accuracies = {}
        for seed in _SEEDS:
            for shots, rows in nested_shots(train.labels, _SHOTS, seed).items():
                support = train.features["pre_logits"][rows]
                scaler = StandardScaler().fit(support)
                ridge = RidgeClassifier(alpha=1024.0)
                ridge.fit(scaler.transform(support), train.labels[rows])
                predicted = ridge.predict(scaler.transform(test.features["pre_logits"]))
                accuracies[shots, seed] = float((predicted == test.labels).mean())
        return [accuracies[shots, seed] for shots in _SHOTS for seed in _SEEDS]

    return lambda: _compare(ours, sklearn)


def knn() -> Callable[[], dict[str, float]]:
    """A round of `knn_vs_sklearn`."""
    train, test = _splits(1000, 50_000, 10_000, 768)
    probe = KNNProbe(k=_NEIGHBOURS, temperature=_TEMPERATURE)

    def ours() -> list[float]:
        return list(probe.evaluate(train, test).summary.values())

    def sklearn() -> list[float]:
        classifier = KNeighborsClassifier(
            _NEIGHBOURS[-1],
            metric="cosine",
            algorithm="brute",
            weights=lambda distances: np.exp((1 - distances) / _TEMPERATURE),
        )
        classifier.fit(train.features["pre_logits"], train.labels)
        # One search for all k, as here; the votes of the smaller k cost next to nothing.
        predicted = classifier.predict(test.features["pre_logits"])
        return [float((predicted == test.labels).mean())]

    return lambda: _compare(ours, sklearn)


_PARTS = {"few_shot": few_shot, "knn": knn}
_RATIOS = {"few_shot": "few_shot_vs_sklearn", "knn": "knn_vs_sklearn"}


def _compare(ours: Callable[[], list], theirs: Callable[[], list]) -> dict[str, float]:
    """Seconds of both sides; refuses to go on if what they compute differs."""
    seconds, results = {}, {}
    for name, run in (("vit_tf", ours), ("sklearn", theirs)):
        start = time.perf_counter()
        results[name] = run()
        seconds[name] = round(time.perf_counter() - start, 3)
    agreement = np.abs(
        np.subtract(results["vit_tf"][-len(results["sklearn"]) :], results["sklearn"])
    )
    if agreement.max() > 1e-4:
        raise RuntimeError(f"the two sides differ: {results}")
    return {**seconds, "ratio": round(seconds["sklearn"] / seconds["vit_tf"], 3)}


def main() -> None:
    """Measures, prints the table, keeps the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=_PARTS, help="measure this part alone, and keep nothing")
    arguments = parser.parse_args()
    print(f"machine   {describe_machine()}\nversions  {describe_versions()}\n")
    rounds, ratios = {}, {}
    for part in [arguments.only] if arguments.only else _PARTS:
        run = _PARTS[part]()
        rounds[part] = []
        for number in range(arguments.rounds):
            rounds[part].append(run())
            print(
                f"{part}, round {number + 1} of {arguments.rounds}: {rounds[part][-1]}", flush=True
            )
        ratios[_RATIOS[part]] = round(statistics.median(r["ratio"] for r in rounds[part]), 2)
    print("\n" + "\n".join(f"{name:28s}{ratio:6.2f}" for name, ratio in ratios.items()))
    if not arguments.only:
        print(f"result    {write_result('transfer', ratios, rounds)}")


if __name__ == "__main__":
    main()
