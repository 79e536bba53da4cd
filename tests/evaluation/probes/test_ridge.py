import json
import tracemalloc

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier

from vit_tf.evaluation.probes.linear_classifier import predict
from vit_tf.evaluation.probes.ridge import dual_ridge, fit_ridge, primal_ridge
from vit_tf.evaluation.probes.support_sums import SupportSums

_L2 = (8, 128, 1024, 32768)
_CLASSES = 6


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden/behaviour/few_shot_ridge"
    with np.load(folder / "io.npz") as arrays:
        return dict(arrays), json.loads((folder / "meta.json").read_text())


def _support(examples=60, width=17, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, _CLASSES, examples)
    centres = rng.normal(size=(_CLASSES, width))
    scale = np.exp(rng.normal(size=width))
    features = (centres[labels] + rng.normal(size=(examples, width))) * scale + 3 * scale
    return features.astype(np.float32), labels


def _by_definition(features, labels, test, l2, num_classes=_CLASSES, standardize_by=None):
    """The probe as its definition reads, in float64, the bias column like any other."""
    of = features if standardize_by is None else standardize_by
    mean, deviation = of.mean(0, dtype=float), of.std(0, dtype=float) + 1e-5

    def columns(x):
        return np.hstack([(x - mean) / deviation, np.full((len(x), 1), 100.0)])

    x, y = columns(features), 2.0 * np.eye(num_classes)[labels] - 1
    return columns(test) @ np.linalg.solve(x.T @ x + l2 * np.eye(x.shape[1]), x.T @ y)


def _primal(features, labels, dtype="float64"):
    sums = SupportSums(_CLASSES, dtype)
    sums.add(features, np.arange(len(features)), labels)
    return primal_ridge(sums)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("l2", _L2)
@pytest.mark.parametrize("shots", [1, 5, 10, 25])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_predictions_and_accuracy_are_the_references(golden, seed, shots, l2, precision):
    arrays, meta = golden
    case = f"seed{seed}/shots{shots}/l2_{l2}"
    rows = arrays[f"seed{seed}/shots{shots}/indices"]
    labels = arrays["train_labels"][rows]
    ridge = fit_ridge(arrays["train_features"], rows, labels, _CLASSES, precision)
    classifier = ridge.classifier(l2)
    scores = classifier.scores(arrays["test_features"], precision)
    reference = arrays[f"{case}/scores"]
    deviation = meta["verification"]["scores_deviation_from_float64_over_largest_score"]
    allowed = max(1e-4, 5 * deviation[f"shots{shots}/l2_{l2}"]) * np.abs(reference).max()
    assert np.abs(scores - reference).max() <= allowed
    exact = arrays[f"{case}/scores_float64"]
    if precision == "float64":
        np.testing.assert_allclose(scores, exact, rtol=1e-6, atol=1e-9)
    else:  # nearer to the exact solution than the reference's float32 is at a small l2
        assert np.abs(scores - exact).max() <= 1e-5 * np.abs(exact).max()
    (predicted,) = predict([classifier], arrays["test_features"], precision)
    np.testing.assert_array_equal(predicted, scores.argmax(1))
    decided = arrays[f"{case}/decided"]
    np.testing.assert_array_equal(predicted[decided], arrays[f"{case}/predictions"][decided])
    accuracy = (predicted == arrays["test_labels"]).mean()
    assert abs(accuracy - arrays[f"{case}/accuracy"]) <= (~decided).mean() + 1e-6


@pytest.mark.parametrize("examples", [9, 16, 17, 18, 60])
def test_primal_equals_dual_equals_the_definition(examples):
    features, labels = _support(examples)
    test, _ = _support(30, seed=1)
    for l2 in (0.5, *_L2):
        expected = _by_definition(features, labels, test, l2)
        for ridge in (_primal(features, labels), dual_ridge(features, labels, _CLASSES, "float64")):
            scores = ridge.classifier(l2).scores(test)
            np.testing.assert_allclose(scores, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("examples", [12, 300])
def test_predictions_are_those_of_sklearns_ridge_classifier(examples):
    features, labels = _support(examples)
    test, _ = _support(500, seed=1)
    mean, deviation = features.mean(0), features.std(0) + 1e-5

    def columns(x):
        return np.hstack([(x - mean) / deviation, np.full((len(x), 1), 100.0)])

    for l2 in _L2:
        sklearn = RidgeClassifier(alpha=l2, fit_intercept=False).fit(columns(features), labels)
        ridge = fit_ridge(features, np.arange(examples), labels, _CLASSES)
        (predicted,) = predict([ridge.classifier(l2)], test, "float64")
        np.testing.assert_array_equal(predicted, sklearn.predict(columns(test)))


def test_the_smaller_system_is_solved():
    for examples, size in ((9, 9), (16, 16), (17, 17), (60, 17)):
        features, labels = _support(examples)
        ridge = fit_ridge(features, np.arange(examples), labels, _CLASSES)
        assert ridge.system.shape == (size, size)


@pytest.mark.parametrize("examples", [12, 60])
def test_one_decomposition_gives_every_l2(examples):
    features, labels = _support(examples)
    ridge = fit_ridge(features, np.arange(examples), labels, _CLASSES)
    for l2, of_path in zip(_L2, ridge.path(_L2), strict=True):
        alone = ridge.classifier(l2)
        np.testing.assert_allclose(of_path.kernel, alone.kernel, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(of_path.bias, alone.bias)


@pytest.mark.parametrize("examples", [12, 60])
def test_leaving_one_out_equals_fitting_to_all_others(examples):
    features, labels = _support(examples)
    everything = np.arange(examples)
    ridge = fit_ridge(features, everything, labels, _CLASSES)
    grid = (0.01, *_L2)
    seen = []
    for l2, part, scores in ridge.leave_one_out(features, everything, labels, grid):
        for example, of_example in zip(part, scores, strict=True):
            others = everything != example
            refit = _by_definition(
                features[others], labels[others], features[[example]], l2, standardize_by=features
            )
            np.testing.assert_allclose(of_example, refit[0], rtol=1e-6, atol=1e-9)
            seen.append((l2, example))
    assert sorted(seen) == [(l2, example) for l2 in sorted(grid) for example in everything]


def test_sums_of_nested_support_sets_are_shared():
    features, labels = _support(80)
    order = np.random.default_rng(0).permutation(80)
    sums = SupportSums(_CLASSES, "float64")
    for first, last in ((0, 20), (20, 50), (50, 80)):
        new = order[first:last]
        sums.add(features, new, labels[new])
        rows = order[:last]
        alone = _primal(features[rows], labels[rows])
        shared = primal_ridge(sums)
        np.testing.assert_allclose(shared.system, alone.system, atol=1e-9)
        np.testing.assert_allclose(shared.targets, alone.targets, atol=1e-9)
        np.testing.assert_array_equal(shared.class_counts, alone.class_counts)


def test_blocks_do_not_change_the_sums(monkeypatch):
    features, labels = _support(80)
    whole = _primal(features, labels)
    monkeypatch.setattr("vit_tf.evaluation.probes.feature_blocks.BLOCK_VALUES", 17 * 7)
    blocks = _primal(features, labels)
    np.testing.assert_allclose(blocks.system, whole.system, atol=1e-9)
    np.testing.assert_allclose(blocks.targets, whole.targets, atol=1e-9)


def test_a_feature_that_is_constant_in_the_support_set_has_no_weight():
    features, labels = _support(60)
    features[:, 3] = 7.0
    test, _ = _support(30, seed=1)  # where it varies
    without = np.delete(np.arange(17), 3)
    for precision in ("float32", "float64"):
        ridge = fit_ridge(features, np.arange(60), labels, _CLASSES, precision)
        alone = fit_ridge(features[:, without], np.arange(60), labels, _CLASSES, precision)
        np.testing.assert_allclose(
            ridge.classifier(8).scores(test),
            alone.classifier(8).scores(test[:, without]),
            atol=1e-5,
        )


def test_float32_bears_features_whose_mean_exceeds_their_deviation():
    features, labels = _support(60)
    test, _ = _support(30, seed=1)
    far = (features + 300, test + 300)  # what float32 itself still resolves to 3e-5
    ridge = fit_ridge(far[0], np.arange(60), labels, _CLASSES, "float32")
    exact = _by_definition(far[0].astype(float), labels, far[1].astype(float), 128)
    np.testing.assert_allclose(ridge.classifier(128).scores(far[1], "float32"), exact, atol=1e-5)


def test_an_l2_below_rounding_errors_is_refused_with_the_fix():
    features, labels = _support(60)
    everything = np.arange(60)
    ridge = fit_ridge(features, everything, labels, _CLASSES, "float32")
    with pytest.raises(ValueError, match=r"l2=1e-06 is below .* or precision=\"float64\""):
        ridge.classifier(1e-6)
    ridge = fit_ridge(features, everything, labels, _CLASSES, "float64")
    ridge.classifier(1e-6)
    with pytest.raises(ValueError, match=r"in float64, 1e-14; choose a larger one$"):
        ridge.classifier(1e-18)


def test_memory_stays_that_of_the_system_and_of_blocks(tmp_path, monkeypatch):
    """40,000 mapped examples of 2,000 classes: their targets alone would take 320 MB."""
    examples, width, classes = 40_000, 64, 2_000
    features = np.lib.format.open_memmap(
        tmp_path / "features.npy", "w+", np.float32, (examples, width)
    )
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, examples)
    features[:] = rng.normal(size=(examples, width)) + rng.normal(size=(classes, width))[labels]
    monkeypatch.setattr("vit_tf.evaluation.probes.feature_blocks.BLOCK_VALUES", 2**19)
    monkeypatch.setattr("vit_tf.evaluation.probes.linear_classifier._BLOCK_VALUES", 2**19)
    tracemalloc.start()
    ridge = fit_ridge(features, np.arange(examples), labels, classes, "float32")
    (predicted,) = predict([ridge.classifier(1024)], features)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (predicted == labels).mean() > 0.5
    of_classes = 8 * classes * width  # one array of the size of the solution: 1 MB
    assert peak < 8 * of_classes + 8 * 4 * 2**19
