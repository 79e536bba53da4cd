"""Logistic regression is scikit-learn's, and its penalty is chosen within the training split."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.probes import feature_blocks, logistic, softmax_regression
from vit_tf.evaluation.probes.feature_blocks import Standardization, standardization
from vit_tf.evaluation.probes.logistic import LogisticProbe
from vit_tf.evaluation.probes.softmax_regression import SoftmaxRegressionProblem

WIDTH = 12


def clusters(examples, classes=4, seed=0, spread=2.0, width=WIDTH):
    """Overlapping clouds of points of different scales, in a random order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(examples) % classes)
    centres = np.random.default_rng(7).normal(size=(classes, width))
    scales = np.geomspace(0.5, 2, width)
    features = (centres[labels] + spread * rng.normal(size=(examples, width))) * scales + 0.3
    return features.astype(np.float32), labels


def splits(classes=4, **further):
    return [
        FeatureSet({"pre_logits": x}, y, classes)
        for x, y in (clusters(240, classes, 0, **further), clusters(120, classes, 1, **further))
    ]


def solve(features, labels, c, standardize=True, **further):
    rows = np.arange(len(labels))
    problem = SoftmaxRegressionProblem(
        features, labels, rows, standardization(features, rows, on=standardize), "float64"
    )
    return problem.solve(c, tolerance=1e-9, max_iter=5000, **further)


@pytest.mark.parametrize("c, classes", [(1e-3, 3), (0.1, 4), (10.0, 3)])
def test_coefficients_and_probabilities_are_those_of_scikit_learn(c, classes):
    x, y = clusters(240, classes)
    ours = solve(x, y, c, standardize=False)
    theirs = LogisticRegression(C=c, tol=1e-9, max_iter=5000).fit(x.astype(np.float64), y)
    np.testing.assert_allclose(ours.kernel.T, theirs.coef_, atol=2e-6)
    # A constant may be added to all biases; the one that makes their sum 0 is L-BFGS's from zeros.
    np.testing.assert_allclose(ours.bias, theirs.intercept_, atol=2e-5)
    logits = ours.logits(x)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, theirs.predict_proba(x.astype(np.float64)), atol=1e-6)
    assert ours.converged


def test_of_two_classes_too():
    x, y = clusters(240, 2)
    ours = solve(x, y, 0.05, standardize=False)
    theirs = LogisticRegression(C=0.05, tol=1e-9, max_iter=5000).fit(x.astype(np.float64), y)
    np.testing.assert_allclose(ours.kernel[:, 1] - ours.kernel[:, 0], theirs.coef_[0], atol=2e-6)
    np.testing.assert_allclose(ours.bias[1] - ours.bias[0], theirs.intercept_[0], atol=2e-6)


def test_standardised_features_are_scikit_learns_scaled_ones():
    x, y = clusters(240)
    ours = solve(x, y, 1.0)
    scaled = StandardScaler().fit_transform(x.astype(np.float64))
    theirs = LogisticRegression(C=1.0, tol=1e-9, max_iter=5000).fit(scaled, y)
    np.testing.assert_allclose(ours.kernel.T, theirs.coef_, atol=1e-4)  # of deviations + 1e-5
    assert np.array_equal(ours.logits(x).argmax(1), theirs.predict(scaled))


def test_a_start_does_not_change_the_solution():
    x, y = clusters(240)
    far = solve(x, y, 1e-3)
    np.testing.assert_allclose(
        solve(x, y, 1.0, start=far).kernel, solve(x, y, 1.0).kernel, atol=1e-6
    )


@pytest.mark.parametrize("kept", [0, 2**32])
def test_blocks_do_not_change_the_solution(monkeypatch, kept):
    x, y = clusters(240)
    whole = solve(x, y, 1.0)
    monkeypatch.setattr(feature_blocks, "BLOCK_VALUES", 50 * WIDTH)
    monkeypatch.setattr(softmax_regression, "_KEPT_BYTES", kept)
    blocks = solve(x, y, 1.0)
    np.testing.assert_allclose(blocks.kernel, whole.kernel, atol=1e-6)
    rows = np.arange(240)
    assert blocks.accuracy(x, y, rows) == np.mean(whole.logits(x).argmax(1) == y)


def test_a_class_without_training_examples_is_never_predicted():
    x, y = clusters(240)
    y = np.where(y == 1, 5, y)
    fitted = solve(x, y, 1.0)
    assert fitted.classes.tolist() == [0, 2, 3, 5]
    shares = [fitted.accuracy(x, y, np.flatnonzero(y == label)) for label in (0, 5)]
    assert min(shares) > 0.4


def test_the_grid_is_fitted_to_one_part_and_chosen_by_the_other():
    train, test = splits()
    probe = LogisticProbe(c=(1e-5, 1e-2, 1e3), precision="float64", tolerance=1e-8)
    result = probe.evaluate(train, test)
    learnt, held_out = logistic.hold_out(train.labels, 0.1, 0)
    x, y = train.features["pre_logits"].astype(np.float64), train.labels
    scale = StandardScaler().fit(x[learnt])
    for row in result.rows:
        theirs = LogisticRegression(C=row["c"], tol=1e-8, max_iter=5000)
        theirs.fit(scale.transform(x[learnt]), y[learnt])
        share = theirs.score(scale.transform(x[held_out]), y[held_out])
        assert row["held_out_accuracy"] == pytest.approx(share, abs=1e-9)
    best = max(result.rows, key=lambda row: row["held_out_accuracy"])
    assert [row["chosen"] for row in result.rows] == [int(row is best) for row in result.rows]
    scale = StandardScaler().fit(x)
    theirs = LogisticRegression(C=best["c"], tol=1e-8, max_iter=5000).fit(scale.transform(x), y)
    on_test = theirs.score(scale.transform(test.features["pre_logits"]), test.labels)
    assert result.summary["accuracy"] == best["accuracy"] == pytest.approx(on_test, abs=1e-9)
    assert result.summary["c"] == best["c"]
    assert result.headline == "accuracy"


def test_test_labels_measure_and_do_nothing_else():
    train, test = splits()
    shuffled = FeatureSet(test.features, np.random.default_rng(0).permutation(test.labels), 4)
    probe = LogisticProbe(c=(1e-4, 1e-2, 1.0))
    right, chance = probe.evaluate(train, test), probe.evaluate(train, shuffled)
    assert [row["held_out_accuracy"] for row in right.rows] == [
        row["held_out_accuracy"] for row in chance.rows
    ]
    assert right.summary["c"] == chance.summary["c"]
    assert right.summary["accuracy"] > 0.6 and chance.summary["accuracy"] < 0.4


def test_float32_finds_the_same_accuracies():
    train, test = splits()
    results = [LogisticProbe(precision=p).evaluate(train, test) for p in ("float32", "float64")]
    accuracies = [[row["held_out_accuracy"] for row in result.rows] for result in results]
    np.testing.assert_allclose(*accuracies, atol=1 / 24)
    assert results[0].summary["accuracy"] == pytest.approx(results[1].summary["accuracy"], abs=0.01)


def test_one_c_needs_no_held_out_examples():
    train, test = splits()
    few = FeatureSet({"pre_logits": train.features["pre_logits"][:2]}, np.array([0, 1]), 4)
    result = LogisticProbe(c=1.0).evaluate(few, test)
    assert len(result.rows) == 1 and "held_out_accuracy" not in result.summary
    with pytest.raises(ValueError, match="no class of the 2 training examples has two"):
        LogisticProbe(c=(0.1, 1.0)).evaluate(few, test)


def test_too_few_iterations_are_said():
    train, test = splits()
    with pytest.warns(UserWarning, match=r"c = 1; raise max_iter \(now 2\)"):
        LogisticProbe(c=1.0, max_iter=2).evaluate(train, test)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LogisticProbe(c=1.0).evaluate(train, test)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"features": {"pre_logit": np.zeros((240, 3))}}, "Did you mean 'pre_logit'"),
        ({"labels": np.ones((240, 4), np.float32)}, "LinearProbe takes several"),
        ({"labels": np.full(240, 4)}, r"must be in \[0, 4\); given 4 to 4"),
        ({"labels": np.zeros(240)}, r"must be integers .* given float64 \[240\]"),
        ({"labels": np.zeros(240, int)}, "examples of 1 class"),
        ({"features": {"pre_logits": np.full((240, WIDTH), np.nan)}}, "NaN or infinite"),
        ({"num_classes": 5}, "the same classes; train has 5 and test 4"),
        ({"features": {"pre_logits": np.zeros((240, 3))}}, "given 3 and 12"),
    ],
)
def test_splits_that_do_not_fit(change, message):
    train, test = splits()
    fields = {"features": train.features, "labels": train.labels, "num_classes": 4} | change
    with pytest.raises(ValueError, match=message):
        LogisticProbe(c=1.0).evaluate(FeatureSet(**fields), test)


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match=r"c must be one or more values above 0; given \(0, 1\)"):
        LogisticProbe(c=(0, 1))
    with pytest.raises(ValueError, match="given 'half'"):
        LogisticProbe(precision="half")
    train, test = splits()
    with pytest.raises(ValueError, match="share of the training split"):
        LogisticProbe(held_out=1.5).evaluate(train, test)


def test_statistics_of_some_rows_are_computed_in_blocks(monkeypatch):
    monkeypatch.setattr(feature_blocks, "BLOCK_VALUES", 7 * WIDTH)
    x, _ = clusters(100)
    rows = np.arange(3, 80, 2)
    found = standardization(x, rows)
    np.testing.assert_allclose(found.mean, x[rows].astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.deviation, x[rows].astype(np.float64).std(0) + 1e-5)
    assert isinstance(found, Standardization) and found(x, "float32").dtype == np.float32


def test_held_out_examples_are_a_share_of_every_class_and_never_its_last():
    labels = np.repeat([0, 1, 2, 3], [40, 10, 2, 1])
    learnt, held_out = logistic.hold_out(labels, 0.1, seed=3)
    assert np.array_equal(np.sort(np.concatenate([learnt, held_out])), np.arange(53))
    assert np.bincount(labels[held_out], minlength=4).tolist() == [4, 1, 1, 0]
    assert np.array_equal(held_out, logistic.hold_out(labels, 0.1, seed=3)[1])
    assert not np.array_equal(held_out, logistic.hold_out(labels, 0.1, seed=4)[1])
