"""Speed of evaluation by transfer, side by side with what is in use.

  make benchmark-transfer DATA_DIR=data/flowers5

Every round measures both sides of a comparison, one after the other; a ratio is that of seconds of
the clock within a round, and the median of the rounds is reported (seconds of the processor, of
all threads together, are kept beside them). Both sides may use all cores.

  few_shot           `FewShotProbe` on 1000 classes x {1, 5, 10, 25} shots x 1024 features, and
                     50,000 test examples; against scikit-learn's `StandardScaler` and
                     `RidgeClassifier`, fitted to each support set and predicting the test examples.
                     A round is one of the seeds 0, 1, 2, in turn
  few_shot_float64   the same with the features given to scikit-learn as float64
  knn                `KNNProbe` for k = 10, 20, 100, 200 with 50,000 training examples of 768
                     features and 10,000 test examples; against scikit-learn's
                     `KNeighborsClassifier(200, metric="cosine", algorithm="brute")` with the
                     probe's weights
  extraction         features of 128 photographs by ViT-S/16 at 224, read, decoded and resized as it
                     goes, from shards of JPEG files (`--data_dir`; left out without); against the
                     same model on a batch in memory. The ratio is that of images a second

Features are float32, drawn at random about the centres of their classes.
"""

import argparse
import functools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
from extraction import extraction
from results_file import describe_machine, describe_versions, write_result
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.probes import FewShotProbe, KNNProbe
from vit_tf.evaluation.probes.shots import nested_shots

_SHOTS = (1, 5, 10, 25)
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


def few_shot(dtype: str = "float32") -> Callable[[int], dict[str, float]]:
    """What measures a round of `few_shot_vs_sklearn`."""
    train, test = _splits(1000, 30_000, 50_000, 1024)
    theirs = [split.features["pre_logits"].astype(dtype, copy=False) for split in (train, test)]

    def ours(seed: int) -> list[float]:
        probe = FewShotProbe(shots=_SHOTS, seeds=(seed,))
        return list(probe.evaluate(train, test).summary.values())

    def sklearn(seed: int) -> list[float]:
        accuracies = []
        for rows in nested_shots(train.labels, _SHOTS, seed).values():
            support = theirs[0][rows]
            scaler = StandardScaler().fit(support)
            ridge = RidgeClassifier(alpha=1024.0)
            ridge.fit(scaler.transform(support), train.labels[rows])
            predicted = ridge.predict(scaler.transform(theirs[1]))
            accuracies.append(float((predicted == test.labels).mean()))
        return accuracies

    return lambda number: _compare(lambda: ours(number % 3), lambda: sklearn(number % 3))


def knn() -> Callable[[int], dict[str, float]]:
    """What measures a round of `knn_vs_sklearn`."""
    train, test = _splits(1000, 50_000, 10_000, 768)
    probe = KNNProbe(k=_NEIGHBOURS, temperature=_TEMPERATURE)

    def ours() -> list[float]:
        return list(probe.evaluate(train, test).summary.values())

    def sklearn() -> list[float]:  # for the largest k alone, which is no more work for it
        classifier = KNeighborsClassifier(
            _NEIGHBOURS[-1],
            metric="cosine",
            algorithm="brute",
            weights=lambda distances: np.exp((1 - distances) / _TEMPERATURE),
        )
        classifier.fit(train.features["pre_logits"], train.labels)
        predicted = classifier.predict(test.features["pre_logits"])
        return [float((predicted == test.labels).mean())]

    return lambda number: _compare(ours, sklearn)


_PARTS = {  # name: what prepares it, the name of its ratio
    "few_shot": (few_shot, "few_shot_vs_sklearn"),
    "few_shot_float64": (functools.partial(few_shot, "float64"), "few_shot_vs_sklearn_float64"),
    "knn": (knn, "knn_vs_sklearn"),
}


def _compare(
    ours: Callable[[], list[float]], theirs: Callable[[], list[float]]
) -> dict[str, float]:
    """Seconds of both sides; refuses to go on if their accuracies differ."""
    seconds, accuracies = {}, {}
    for name, run in (("vit_tf", ours), ("sklearn", theirs)):
        clock, core = time.perf_counter(), time.process_time()
        accuracies[name] = run()
        seconds[name] = round(time.perf_counter() - clock, 3)
        seconds[f"{name} processor"] = round(time.process_time() - core, 3)
    common = len(accuracies["sklearn"])
    np.testing.assert_allclose(accuracies["vit_tf"][-common:], accuracies["sklearn"], atol=1e-4)
    return {**seconds, "ratio": round(seconds["sklearn"] / seconds["vit_tf"], 3)}


def main() -> None:
    """Measures, prints the table, keeps the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument(
        "--only",
        choices=[*_PARTS, "extraction"],
        nargs="+",
        help="the others' results stay",
    )
    parser.add_argument("--data_dir", help="shards of JPEG photographs, for extraction")
    arguments = parser.parse_args()
    parts = dict(_PARTS)
    if arguments.data_dir:
        measuring = functools.partial(extraction, arguments.data_dir)
        parts["extraction"] = (measuring, "extraction_vs_inference")
    print(f"machine   {describe_machine()}\nversions  {describe_versions()}\n")
    ratios, runs = _earlier()
    for part in arguments.only or parts:
        if part not in parts:
            parser.error("extraction needs --data_dir")
        prepare, ratio = parts[part]
        measure, runs[part] = prepare(), []
        for number in range(arguments.rounds):
            runs[part].append(measure(number))
            print(f"{part}, round {number + 1} of {arguments.rounds}: {runs[part][-1]}", flush=True)
        ratios[ratio] = round(statistics.median(run["ratio"] for run in runs[part]), 2)
    print("\n" + "\n".join(f"{name:30s}{ratio:6.2f}" for name, ratio in ratios.items()))
    print(f"result    {write_result('transfer', ratios, runs)}")


def _earlier() -> tuple[dict[str, float], dict[str, list[dict[str, float]]]]:
    """Ratios and runs of an earlier measurement, parts of which may be repeated."""
    path = Path(__file__).parent / "results" / "transfer.json"
    if not path.exists():
        return {}, {}
    result = json.loads(path.read_text())
    return result["ratios"], result["runs"]


if __name__ == "__main__":
    main()
