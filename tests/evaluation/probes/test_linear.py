"""Heads trained side by side are those trained alone, and chosen within the training split."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from vit_tf.evaluation.average_precision import mean_average_precision
from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.probes.feature_blocks import standardization
from vit_tf.evaluation.probes.held_out import hold_out
from vit_tf.evaluation.probes.linear import LinearProbe
from vit_tf.evaluation.probes.linear_heads import LinearHeads

CLASSES = 3
RATES = (0.003, 0.03, 0.3)
ROWS = np.arange(5, 85)
SHORT = {"batch_size": 32, "steps": 60}


def made_split(examples, seed, several_labels=False):
    """A clear feature and a noisy one, of other widths and scales."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(examples) % CLASSES)
    centres = np.random.default_rng(7).normal(size=(CLASSES, 6))
    clear = 3 * (centres[labels] + rng.normal(size=(examples, 6))) + 2
    features = {"clear": clear, "noisy": clear[:, :4] + 9 * rng.normal(size=(examples, 4))}
    if several_labels:
        labels = (centres[labels] @ centres.T > 0).astype(np.float32)
    features = {name: values.astype(np.float32) for name, values in features.items()}
    return FeatureSet(features, labels, CLASSES)


def trained(split, names=("clear", "noisy"), rates=RATES, steps=40, **further):
    statistics = {name: standardization(split.features[name], ROWS) for name in names}
    several_labels = split.labels.ndim == 2
    heads = LinearHeads(statistics, CLASSES, rates, several_labels=several_labels, **further)
    values = {name: split.features[name] for name in names}
    heads.train(values, split.labels, ROWS, batch_size=32, steps=steps, seed=3)
    return heads


def sgd(split, name, rate, steps=40, momentum=0.9, nesterov=False, weight_decay=0.0):
    """One head in NumPy's float64, from the formulas alone."""
    x = split.features[name].astype(np.float64)
    x = (x - x[ROWS].mean(0)) / (x[ROWS].std(0) + 1e-5)
    targets = split.labels if split.labels.ndim == 2 else np.eye(CLASSES)[split.labels]
    epochs = [np.random.default_rng((3, epoch)).permutation(ROWS) for epoch in range(99)]
    order = np.concatenate(epochs)[: 32 * steps].reshape(steps, 32)
    kernel, bias = np.zeros((x.shape[1], CLASSES)), np.zeros(CLASSES)
    kernel_velocity, bias_velocity = np.zeros_like(kernel), np.zeros_like(bias)
    for step, batch in enumerate(order):
        logits = x[batch] @ kernel + bias
        if split.labels.ndim == 2:
            outputs = 1 / (1 + np.exp(-logits))
        else:
            outputs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        error = (outputs - targets[batch]) / 32
        kernel_gradient, bias_gradient = x[batch].T @ error + weight_decay * kernel, error.sum(0)
        kernel_velocity = momentum * kernel_velocity + kernel_gradient
        bias_velocity = momentum * bias_velocity + bias_gradient
        now = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        if nesterov:
            kernel -= now * (kernel_gradient + momentum * kernel_velocity)
            bias -= now * (bias_gradient + momentum * bias_velocity)
        else:
            kernel -= now * kernel_velocity
            bias -= now * bias_velocity
    return kernel, bias


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"nesterov": True, "momentum": 0.8},
        {"weight_decay": 0.1},
        {"jit_compile": True},
        {"several_labels": True},
    ],
)
def test_every_head_is_what_sgd_alone_makes_of_it(options):
    options = dict(options)
    split = made_split(90, 0, options.pop("several_labels", False))
    heads = trained(split, **options)
    options.pop("jit_compile", None)
    for name in ("clear", "noisy"):
        kernels, biases = heads.weights(name)
        for rate, *weights in zip(RATES, kernels, biases, strict=True):
            for found, expected in zip(weights, sgd(split, name, rate, **options), strict=True):
                np.testing.assert_allclose(found, expected, atol=2e-5 * max(1, abs(expected).max()))


def test_heads_trained_together_are_those_trained_alone():
    split = made_split(90, 0)
    together = trained(split).weights("clear")
    for place, rate in enumerate(RATES):
        alone = trained(split, ["clear"], [rate]).weights("clear")
        for stacked, single in zip(together, alone, strict=True):
            np.testing.assert_allclose(stacked[place], single[0], atol=1e-6)


def test_the_same_seed_gives_the_same_bits_and_another_other_examples():
    splits = made_split(90, 0), made_split(60, 1)
    results = [
        LinearProbe(("clear", "noisy"), RATES, **SHORT, seed=seed).evaluate(*splits).rows
        for seed in (0, 0, 1)
    ]
    assert results[0] == results[1] != results[2]


def test_the_best_on_held_out_examples_is_trained_again_on_all_and_measured():
    train, test = made_split(150, 0), made_split(90, 1)
    result = LinearProbe(("noisy", "clear"), RATES, **SHORT).evaluate(train, test)
    assert [(row["features"], row["learning_rate"]) for row in result.rows] == [
        (name, rate) for name in ("noisy", "clear") for rate in RATES
    ]
    best = max(result.rows, key=lambda row: row["held_out_accuracy"])
    assert best["features"] == "clear"
    assert [row["chosen"] for row in result.rows] == [int(row is best) for row in result.rows]
    assert result.summary == {
        "accuracy": best["accuracy"],
        "held_out_accuracy": best["held_out_accuracy"],
        "learning_rate": best["learning_rate"],
    }
    alone = LinearProbe("clear", best["learning_rate"], **SHORT).evaluate(train, test)
    assert alone.summary["accuracy"] == best["accuracy"] > 0.6
    assert "held_out_accuracy" not in alone.summary


def test_held_out_accuracy_is_of_heads_that_have_not_seen_the_examples():
    train, test = made_split(150, 0), made_split(90, 1)
    result = LinearProbe("clear", RATES, **SHORT).evaluate(train, test)
    learnt, held_out = hold_out(train.labels, 0.1, 0)
    heads = LinearHeads(
        {"clear": standardization(train.features["clear"], learnt)},
        CLASSES,
        np.array(RATES) * 32 / 256,
    )
    only = {"clear": train.features["clear"]}
    heads.train(only, train.labels, learnt, 32, 60, seed=0)
    for place, row in enumerate(result.rows):
        ((_, scores),) = heads.scores(only, "clear", place, held_out)
        share = np.mean(scores.argmax(1) == train.labels[held_out])
        assert row["held_out_accuracy"] == pytest.approx(share)


def test_test_labels_measure_and_do_nothing_else():
    train, test = made_split(150, 0), made_split(150, 1)
    shuffled = np.random.default_rng(0).permutation(test.labels)
    probe = LinearProbe(("clear", "noisy"), RATES, **SHORT)
    right = probe.evaluate(train, test)
    chance = probe.evaluate(train, FeatureSet(test.features, shuffled, CLASSES))
    assert [row["chosen"] for row in right.rows] == [row["chosen"] for row in chance.rows]
    assert chance.summary["accuracy"] < 0.5 < right.summary["accuracy"]


def test_examples_of_several_labels_are_measured_by_mean_average_precision():
    train, test = made_split(150, 0, True), made_split(90, 1, True)
    result = LinearProbe(("clear", "noisy"), RATES, **SHORT).evaluate(train, test)
    assert result.headline == "mean_average_precision"
    chosen = next(row for row in result.rows if row["chosen"])
    assert chosen["features"] == "clear"
    assert chosen["mean_average_precision"] == result.summary["mean_average_precision"] > 0.8
    assert "held_out_mean_average_precision" in result.summary


def test_mean_average_precision_is_scikit_learns():
    rng = np.random.default_rng(0)
    targets = (rng.random((200, 5)) < [0.02, 0.2, 0.5, 0.9, 0]).astype(np.float32)
    for scores in (rng.normal(size=(200, 5)), rng.integers(0, 6, (200, 5)).astype(float)):
        expected = average_precision_score(targets[:, :4], scores[:, :4], average="macro")
        assert mean_average_precision(targets, scores) == pytest.approx(expected, abs=1e-12)
    assert np.isnan(mean_average_precision(np.zeros((4, 2)), np.ones((4, 2))))


def test_epochs_take_the_place_of_steps():
    train, test = made_split(96, 0), made_split(60, 1)
    by_epochs = LinearProbe("clear", 0.1, batch_size=32, epochs=5).evaluate(train, test)
    by_steps = LinearProbe("clear", 0.1, batch_size=32, steps=15).evaluate(train, test)
    assert by_epochs == by_steps


def test_a_split_smaller_than_a_batch_is_one_batch():
    train, test = made_split(30, 0), made_split(60, 1)
    whole = LinearProbe("clear", 0.1, batch_size=30, steps=9).evaluate(train, test)
    assert LinearProbe("clear", 0.1, batch_size=1024, steps=9).evaluate(train, test) == whole


def test_heads_that_diverge_are_not_chosen_and_all_of_them_are_an_error():
    train, test = made_split(150, 0), made_split(60, 1)
    options = SHORT | {"weight_decay": 0.1}  # which a rate of 1e9 turns into growth without end
    result = LinearProbe("clear", (1e9, 0.1), **options).evaluate(train, test)
    assert result.rows[0]["held_out_accuracy"] == 0 and result.rows[1]["chosen"]
    with pytest.raises(ValueError, match=r"diverged at the learning rate 1e\+09 on 'clear'"):
        LinearProbe("clear", 1e9, **options).evaluate(train, test)


def test_arguments_and_splits_that_do_not_fit():
    with pytest.raises(ValueError, match=r"learning_rates must be above 0; given \(0.1, 0\)"):
        LinearProbe(learning_rates=(0.1, 0))
    with pytest.raises(ValueError, match="must be above 0; given 1024, 0 and None"):
        LinearProbe(steps=0)
    with pytest.raises(ValueError, match="features names no feature"):
        LinearProbe(features=())
    with pytest.raises(ValueError, match="no features 'cler', but 'clear', 'noisy'. Did you mean"):
        LinearProbe("cler").evaluate(made_split(30, 0), made_split(30, 1))
    infinite = {"clear": np.full((30, 6), np.inf, np.float32)}
    with pytest.raises(ValueError, match="NaN or infinite"):
        LinearProbe("clear").evaluate(made_split(30, 0), FeatureSet(infinite, np.arange(30) % 3, 3))
    with pytest.raises(ValueError, match=r"labels \[30\] and \[30, 3\]"):
        LinearProbe("clear").evaluate(made_split(30, 0), made_split(30, 1, True))
