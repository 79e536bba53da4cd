import tracemalloc

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.probes import KNNProbe, knn
from vit_tf.evaluation.probes.knn import nearest, vote

_CLASSES = 7
_K = (1, 5, 20, 60)


def _split(examples, seed, noise=2.0, width=16, name=""):
    centres = np.random.default_rng(0).normal(size=(_CLASSES, width))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, _CLASSES, examples)
    features = centres[labels] + noise * rng.normal(size=(examples, width))
    return FeatureSet({"f": features.astype(np.float32)}, labels, _CLASSES, name=name)


@pytest.fixture(scope="module")
def splits():
    return _split(400, 1, name="train"), _split(301, 2, name="test")


@pytest.fixture
def small_blocks(monkeypatch):
    """Several blocks of both splits, the last of which are shorter."""
    monkeypatch.setattr(knn, "_TRAIN_ROWS", 90)
    monkeypatch.setattr(knn, "_TEST_ROWS", 64)
    monkeypatch.setattr(knn, "_VOTES", 50 * _CLASSES)


def _measure(splits, k=_K, **arguments):
    return KNNProbe("f", k=k, **arguments).evaluate(*splits)


def _by_definition(train, test, k, temperature):
    """Votes example by example, as the protocol reads, in float64."""
    keys, queries = (
        f / np.linalg.norm(f, axis=1, keepdims=True)
        for f in (train.features["f"].astype(float), test.features["f"].astype(float))
    )
    right = 0
    for query, label in zip(queries, test.labels, strict=True):
        similarities = keys @ query
        votes = np.zeros(_CLASSES)
        for neighbour in np.argsort(-similarities, kind="stable")[:k]:
            votes[train.labels[neighbour]] += np.exp(similarities[neighbour] / temperature)
        right += votes.argmax() == label
    return right / len(test)


@pytest.mark.parametrize("temperature", [0.02, 0.07, 1.0])
def test_accuracies_are_those_of_the_protocol_written_out(splits, small_blocks, temperature):
    result = _measure(splits, temperature=temperature)
    expected = {f"{k}_nn": _by_definition(*splits, k, temperature) for k in _K}
    assert result.summary == pytest.approx(expected, abs=1e-9)
    assert result.headline == "20_nn"
    assert [(row["k"], row["neighbours"]) for row in result.rows] == [(k, k) for k in _K]


@pytest.mark.parametrize("k", _K)
def test_accuracy_is_sklearns_with_the_same_weights(splits, k):
    train, test = splits
    classifier = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07)
    )
    classifier.fit(train.features["f"], train.labels)
    expected = classifier.score(test.features["f"], test.labels)
    assert _measure(splits).summary[f"{k}_nn"] == pytest.approx(expected)


def test_neighbours_in_blocks_are_those_of_a_full_sort(small_blocks):
    train, test = _split(400, 1).features["f"], _split(301, 2).features["f"]
    similarities, indices = nearest(train, test, 37)
    keys, queries = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (train, test))
    full = queries @ keys.T
    order = np.argsort(-full, axis=1)[:, :37]
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(similarities, np.take_along_axis(full, order, 1), atol=1e-6)


@pytest.mark.parametrize("k", [1, 89, 90, 91, 200, 400])
def test_k_below_at_and_above_a_blocks_size_finds_the_same(small_blocks, k):
    train, test = _split(400, 1).features["f"], _split(70, 2).features["f"]
    _, indices = nearest(train, test, k)
    _, every = nearest(train, test, 400)
    np.testing.assert_array_equal(indices, every[:, :k])
    np.testing.assert_array_equal(np.sort(every, axis=1), np.tile(np.arange(400), (70, 1)))


def test_of_equally_similar_examples_the_earlier_ones_are_taken(small_blocks):
    # Integers along axes, so that similarities are exact and often equal.
    rng = np.random.default_rng(3)
    train = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 300)]
    test = np.array([[2, 0, 0, 0], [0, 1, 1, 0]], np.float32)
    similarities, indices = nearest(train, test, 200)
    exact = train @ test.T
    for row in range(2):
        expected = np.argsort(-exact[:, row], kind="stable")[:200]
        np.testing.assert_array_equal(indices[row], expected)
    np.testing.assert_allclose(similarities[0, 0], 1)


def test_of_classes_with_equal_votes_the_first_is_predicted():
    votes = vote(np.ones((1, 4)), np.array([[2, 1, 1, 2]]), [1, 2, 3, 4], 3)
    np.testing.assert_array_equal(votes[:, 0], [2, 1, 1, 1])


def test_lengths_of_features_do_not_matter_and_a_zero_vector_does_no_harm(splits):
    train, test = splits
    rng = np.random.default_rng(4)
    scaled = [
        FeatureSet({"f": s.features["f"] * 2.0 ** rng.integers(-9, 9, (len(s), 1))}, s.labels, 7)
        for s in splits
    ]
    assert _measure(scaled).summary == _measure(splits).summary
    blank = train.features["f"].copy()
    blank[5] = 0
    result = _measure((FeatureSet({"f": blank}, train.labels, 7), test))
    assert all(0 < share < 1 for share in result.summary.values())


def test_a_low_temperature_does_not_overflow(splits):
    nearest_alone = _measure(splits, k=(1,)).summary["1_nn"]
    with np.errstate(all="raise", under="ignore"):
        cold = _measure(splits, k=(20,), temperature=1e-5).summary["20_nn"]
    assert cold == nearest_alone


def test_twice_the_test_examples_in_another_order_give_the_same(splits):
    train, test = splits
    order = np.random.default_rng(5).permutation(2 * len(test)) % len(test)
    twice = FeatureSet({"f": test.features["f"][order]}, test.labels[order], _CLASSES)
    assert _measure((train, twice)).summary == pytest.approx(_measure(splits).summary)


def test_renamed_classes_give_the_same(splits):
    names = np.random.default_rng(6).permutation(_CLASSES)
    renamed = [FeatureSet(dict(s.features), names[s.labels], _CLASSES) for s in splits]
    assert _measure(renamed).summary == _measure(splits).summary


def test_shuffled_training_labels_give_chance():
    train, test = _split(1500, 1, noise=0.5), _split(1500, 2, noise=0.5)
    assert _measure((train, test)).summary["20_nn"] > 0.95
    shuffled = np.random.default_rng(7).permutation(train.labels)
    train = FeatureSet(dict(train.features), shuffled, _CLASSES)
    result = _measure((train, test), k=(5,))
    assert result.summary["5_nn"] == pytest.approx(1 / _CLASSES, abs=0.05)
    assert result.headline == "5_nn"


def test_k_beyond_the_training_split_takes_all_of_it_and_says_so(splits):
    with pytest.warns(UserWarning, match=r"train has 400 examples, .* k = 500, 1000"):
        result = _measure(splits, k=(20, 500, 1000))
    assert [row["neighbours"] for row in result.rows] == [20, 400, 400]
    assert list(result.summary) == ["20_nn", "500_nn", "1000_nn"]
    expected = _by_definition(*splits, 400, 0.07)
    assert result.summary["500_nn"] == pytest.approx(expected, abs=1e-9)


def test_memory_stays_that_of_blocks_and_of_the_neighbours(tmp_path, monkeypatch):
    """All similarities of 20,000 x 4,000 examples would take 320 MB, the features 5 MB."""
    monkeypatch.setattr(knn, "_TRAIN_ROWS", 1000)
    monkeypatch.setattr(knn, "_TEST_ROWS", 500)
    splits = []
    for examples, seed in ((20_000, 1), (4_000, 2)):
        split = _split(examples, seed)
        np.save(tmp_path / f"{seed}.npy", split.features["f"])
        mapped = np.load(tmp_path / f"{seed}.npy", mmap_mode="r")
        splits.append(FeatureSet({"f": mapped}, split.labels, _CLASSES))
    tracemalloc.start()
    result = _measure(splits, k=(10,))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.summary["10_nn"] > 2 / _CLASSES
    assert peak < 16e6


def test_features_that_are_not_finite_are_named(splits):
    train, test = splits
    broken = train.features["f"].copy()
    broken[11, 3] = np.nan
    with pytest.raises(ValueError, match=r"KNNProbe: features 'f' of train .* at example 11;"):
        _measure((FeatureSet({"f": broken}, train.labels, _CLASSES, name="train"), test))


def test_an_empty_split_several_labels_and_wrong_arguments_are_refused(splits):
    train, test = splits
    empty = FeatureSet({"f": test.features["f"][:0]}, test.labels[:0], _CLASSES, name="test")
    with pytest.raises(ValueError, match="KNNProbe: test has no examples"):
        _measure((train, empty))
    several = FeatureSet(dict(train.features), np.zeros((400, _CLASSES), np.float32), _CLASSES)
    with pytest.raises(ValueError, match="takes one label an example; LinearProbe takes several"):
        _measure((several, test))
    with pytest.raises(ValueError, match="k must be numbers of at least 1"):
        KNNProbe(k=(0, 10))
    with pytest.raises(ValueError, match="temperature must be above 0"):
        KNNProbe(temperature=0.0)
