import warnings

import numpy as np
import pytest
import scipy.stats

from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.probes import FewShotProbe, few_shot
from vit_tf.evaluation.probes.linear_classifier import predict
from vit_tf.evaluation.probes.shots import nested_shots

_CLASSES = 5
_CHOICES = ("none", "leave_one_out", "held_out")


def _split(examples=200, seed=1, noise=2.5, width=12, name=""):
    centres = np.random.default_rng(0).normal(size=(_CLASSES, width))
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(examples) % _CLASSES)
    features = centres[labels] + noise * rng.normal(size=(examples, width))
    return FeatureSet({"f": features.astype(np.float32)}, labels, _CLASSES, name=name)


def _with(split, features=None, labels=None):
    return FeatureSet(
        {"f": split.features["f"] if features is None else features},
        split.labels if labels is None else labels,
        _CLASSES,
        name=split.name,
    )


@pytest.fixture(scope="module")
def splits():
    return _split(seed=1, name="train"), _split(301, seed=2, name="test")


def _measure(splits, **arguments):
    return FewShotProbe("f", **arguments).evaluate(*splits)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_accuracies_are_the_references(shared, precision):
    with np.load(shared / "golden/behaviour/few_shot_ridge/io.npz") as golden:
        train, test = (
            FeatureSet({"f": golden[f"{split}_features"]}, golden[f"{split}_labels"], 6)
            for split in ("train", "test")
        )
        for l2 in (8, 128, 1024, 32768):
            result = FewShotProbe("f", l2=l2, precision=precision).evaluate(train, test)
            assert len(result.rows) == 12
            for row in result.rows:
                case = f"seed{row['seed']}/shots{row['shots']}/l2_{l2}"
                undecided = (~golden[f"{case}/decided"]).mean()
                assert abs(row["accuracy"] - golden[f"{case}/accuracy"]) <= undecided + 1e-6
                assert row["l2"] == l2


def test_summary_is_the_mean_over_seeds_with_students_interval(splits):
    result = _measure(splits, shots=(5, 10), seeds=(0, 1, 2, 3))
    assert result.headline == "10_shot"
    assert list(result.summary) == [
        *("5_shot", "5_shot_low", "5_shot_high", "10_shot", "10_shot_low", "10_shot_high")
    ]
    accuracies = [row["accuracy"] for row in result.rows if row["shots"] == 10]
    interval = scipy.stats.t.interval(
        0.95, 3, np.mean(accuracies), scipy.stats.sem(accuracies, ddof=1)
    )
    assert result.summary["10_shot"] == pytest.approx(np.mean(accuracies))
    assert result.summary["10_shot_low"] == pytest.approx(interval[0])
    assert result.summary["10_shot_high"] == pytest.approx(interval[1])


def test_one_seed_has_no_interval_and_the_largest_shots_lead_where_ten_are_missing(splits):
    result = _measure(splits, shots=(5, 1), seeds=(7,))
    assert list(result.summary) == ["1_shot", "5_shot"]
    assert result.headline == "5_shot"


@pytest.mark.parametrize("choose_l2", _CHOICES)
def test_features_of_another_scale_and_origin_give_the_same(splits, choose_l2):
    rng = np.random.default_rng(4)
    scale, shift = np.exp(rng.normal(size=12)), rng.normal(size=12)
    moved = [_with(s, features=s.features["f"].astype(float) * scale + shift) for s in splits]
    arguments = {"choose_l2": choose_l2, "precision": "float64"}
    assert _measure(moved, **arguments).rows == _measure(splits, **arguments).rows


def test_renamed_classes_give_the_same():
    train, test = _split(200), _split(301, seed=2)
    names = np.random.default_rng(5).permutation(_CLASSES)
    # All examples are drawn, so that renaming does not change the draw.
    arguments = {"shots": (40,), "seeds": (0,)}
    renamed = [_with(split, labels=names[split.labels]) for split in (train, test)]
    assert _measure(renamed, **arguments).rows == _measure((train, test), **arguments).rows


def test_twice_the_test_examples_in_another_order_give_the_same(splits):
    train, test = splits
    order = np.random.default_rng(6).permutation(2 * len(test)) % len(test)
    twice = _with(test, test.features["f"][order], test.labels[order])
    given, expected = _measure((train, twice)), _measure(splits)
    for row, other in zip(given.rows, expected.rows, strict=True):
        assert row == other | {"accuracy": pytest.approx(other["accuracy"])}


@pytest.mark.parametrize("choose_l2", _CHOICES)
def test_shuffled_training_labels_give_chance(choose_l2):
    train, test = _split(500, noise=0.3), _split(1000, seed=2, noise=0.3)
    assert _measure((train, test), choose_l2=choose_l2).summary["25_shot"] > 0.95
    shuffled = _with(train, labels=np.random.default_rng(7).permutation(train.labels))
    shots = _measure((shuffled, test), shots=(25,), seeds=range(8), choose_l2=choose_l2)
    assert shots.summary["25_shot"] == pytest.approx(1 / _CLASSES, abs=0.1)


@pytest.mark.parametrize("choose_l2", _CHOICES)
def test_test_labels_change_neither_the_chosen_l2_nor_predictions(splits, choose_l2, monkeypatch):
    seen = []

    def keep(*arguments):
        seen.append(predict(*arguments))
        return seen[-1]

    monkeypatch.setattr(few_shot, "predict", keep)
    train, test = splits
    labels = np.random.default_rng(8).integers(0, _CLASSES, len(test))
    l2, predictions = [], []
    for of_test in (test, _with(test, labels=labels)):
        seen.clear()
        l2.append([row["l2"] for row in _measure((train, of_test), choose_l2=choose_l2).rows])
        predictions.append(np.concatenate([p.ravel() for p in seen]))
    assert l2[0] == l2[1]
    np.testing.assert_array_equal(*predictions)


def test_a_chosen_l2_helps_where_the_default_is_wrong():
    """A disturbance common to all features hides the classes from all but a small l2."""
    rng = np.random.default_rng(9)

    def split(examples):
        labels = np.arange(examples) % _CLASSES
        features = rng.normal(size=(examples, 10)) + 20 * rng.normal(size=(examples, 1))
        features[:, :_CLASSES] += 3 * np.eye(_CLASSES)[labels]
        return FeatureSet({"f": features.astype(np.float32)}, labels, _CLASSES)

    splits = split(300), split(1000)
    accuracy = {
        choice: _measure(splits, l2=2.0**22, shots=(25,), choose_l2=choice).summary["25_shot"]
        for choice in _CHOICES
    }
    assert accuracy["leave_one_out"] > accuracy["none"] + 0.1
    assert accuracy["held_out"] > accuracy["none"] + 0.1


@pytest.mark.parametrize("choose_l2", ["leave_one_out", "held_out"])
def test_one_shot_keeps_l2_as_nothing_can_be_left_out(splits, choose_l2):
    rows = _measure(splits, shots=(1, 5), l2=100.0, choose_l2=choose_l2).rows
    assert {row["l2"] for row in rows if row["shots"] == 1} == {100.0}
    assert {row["l2"] for row in rows if row["shots"] == 5} <= {2.0**e for e in range(-6, 19, 2)}


def test_of_equally_good_l2_the_nearest_to_the_default_is_taken():
    splits = _split(100, noise=0.01), _split(50, seed=2, noise=0.01)
    for choose_l2 in ("leave_one_out", "held_out"):
        rows = _measure(splits, shots=(10,), choose_l2=choose_l2, l2=900.0).rows
        assert {row["l2"] for row in rows} == {1024.0}


def test_short_classes_are_said_and_counted(splits):
    train = splits[0]
    rows = np.flatnonzero((train.labels > 0) | (np.cumsum(train.labels == 0) <= 3))
    few = _with(train, train.features["f"][rows], train.labels[rows])
    with pytest.warns(UserWarning, match=r"1 of 5 classes of train have fewer than 5 examples"):
        result = _measure((few, splits[1]), shots=(1, 5))
    assert {(row["shots"], row["short_classes"]) for row in result.rows} == {(1, 0), (5, 1)}


def test_a_class_without_training_examples_is_never_predicted(splits):
    train, test = splits
    rows = np.flatnonzero(train.labels != 2)
    with pytest.warns(UserWarning, match="fewer than"):
        result = _measure((_with(train, train.features["f"][rows], train.labels[rows]), test))
    assert max(row["accuracy"] for row in result.rows) <= (test.labels != 2).mean()


def test_features_that_are_not_finite_are_named(splits):
    train, test = splits
    broken = test.features["f"].copy()
    broken[17, 3] = np.nan
    with pytest.raises(ValueError, match=r"FewShotProbe: features 'f' of test .* at example 17;"):
        _measure((train, _with(test, features=broken)))
    broken = train.features["f"].copy()
    drawn = nested_shots(train.labels, (5,), 0)[5].min()
    broken[drawn, 0] = np.inf
    with pytest.raises(ValueError, match=rf"'f' of train .* at example {drawn};"):
        _measure((_with(train, features=broken), test), shots=(5,))


def test_an_empty_split_several_labels_and_wrong_arguments_are_refused(splits):
    train, test = splits
    empty = _with(train, train.features["f"][:0], train.labels[:0])
    with pytest.raises(ValueError, match="FewShotProbe: train has no examples"):
        _measure((empty, test))
    several = _with(train, labels=np.zeros((len(train), _CLASSES), np.float32))
    with pytest.raises(ValueError, match="takes one label an example; LinearProbe takes several"):
        _measure((several, test))
    for arguments, message in (
        ({"shots": ()}, "shots must be numbers of at least 1"),
        ({"shots": (0, 5)}, "shots must be numbers of at least 1"),
        ({"l2": 0.0}, "l2 must be above 0"),
        ({"choose_l2": "test"}, "choose_l2 must be one of none, leave_one_out, held_out"),
        ({"precision": "float16"}, "precision must be one of float32, float64"),
    ):
        with pytest.raises(ValueError, match=message):
            FewShotProbe("f", **arguments)


def test_features_mapped_from_a_file_give_the_same(splits, tmp_path):
    mapped = []
    for split in splits:
        path = tmp_path / f"{split.name}.npy"
        np.save(path, split.features["f"])
        mapped.append(_with(split, features=np.load(path, mmap_mode="r")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _measure(mapped).rows == _measure(splits).rows
