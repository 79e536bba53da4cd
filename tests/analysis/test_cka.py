"""CKA against stored values and naive sums, and what must not change it."""

import itertools
import json

import numpy as np
import pytest

from vit_tf.analysis.cka import MinibatchCKA, linear_cka, unbiased_hsic

PAIRS = ["xy", "xz", "yz", "xx"]


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden" / "inspection" / "cka"
    meta = json.loads((folder / "meta.json").read_text())
    with np.load(folder / "io.npz") as stored:
        return {**stored}, meta["config"]["batch"], meta["tolerance"]


def related_features(examples, seed=0):
    """Two representations that share a part, and differ in size, mean and scale."""
    generator = np.random.default_rng(seed)
    common = generator.normal(size=[examples, 4])
    first = common @ generator.normal(size=[4, 7]) + generator.normal(size=[examples, 7])
    second = common @ generator.normal(size=[4, 5]) + generator.normal(size=[examples, 5]) + 30
    return first, second


def rotation(size, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=[size, size]))[0]


def in_minibatches(first, second, batch):
    cka = MinibatchCKA()
    for start in range(0, len(first), batch):
        cka.update([first[start : start + batch]], [second[start : start + batch]])
    return cka.result()[0, 0]


@pytest.mark.parametrize("pair", PAIRS)
def test_cka_of_all_examples_is_the_stored_one(golden, pair):
    stored, _, tolerance = golden
    found = linear_cka(stored[pair[0]], stored[pair[1]])
    np.testing.assert_allclose(found, stored[f"cka_{pair}"], **tolerance)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_unbiased_criterion_is_the_stored_one(golden, pair):
    stored, batch, tolerance = golden
    first, second = stored[pair[0]], stored[pair[1]]
    found = unbiased_hsic(first, second)
    np.testing.assert_allclose(found, stored[f"unbiased_hsic_full_{pair}"], **tolerance)
    for number, expected in enumerate(stored[f"minibatch_hsic_{pair}"]):
        part = slice(number * batch, (number + 1) * batch)
        k, m = first[part], second[part]
        found = [unbiased_hsic(k, m), unbiased_hsic(k, k), unbiased_hsic(m, m)]
        np.testing.assert_allclose(found, expected, **tolerance)


def test_the_criterion_of_eight_examples_is_the_stored_one(golden):
    stored, _, tolerance = golden
    found = unbiased_hsic(stored["x"][:8], stored["y"][:8])
    np.testing.assert_allclose(found, stored["unbiased_hsic_first8_xy"], **tolerance)


@pytest.mark.parametrize("pair", PAIRS)
def test_cka_of_minibatches_is_the_stored_one(golden, pair):
    stored, batch, tolerance = golden
    found = in_minibatches(stored[pair[0]], stored[pair[1]], batch)
    np.testing.assert_allclose(found, stored[f"minibatch_cka_{pair}"], **tolerance)


def test_all_pairs_come_out_of_one_pass(golden):
    stored, batch, tolerance = golden
    cka = MinibatchCKA()
    for start in range(0, 64, batch):
        part = slice(start, start + batch)
        cka.update((stored[name][part] for name in "xyz"), (stored[name][part] for name in "yz"))
    expected = [
        [stored["minibatch_cka_xy"], stored["minibatch_cka_xz"]],
        [1, stored["minibatch_cka_yz"]],
        [stored["minibatch_cka_yz"], 1],
    ]
    np.testing.assert_allclose(cka.result(), expected, **tolerance)


def test_one_side_alone_is_compared_with_itself():
    first, second = related_features(32)
    alone, both = MinibatchCKA(), MinibatchCKA()
    alone.update([first, second])
    both.update([first, second], [first, second])
    np.testing.assert_allclose(alone.result(), both.result(), rtol=1e-12)
    np.testing.assert_allclose(np.diag(alone.result()), 1, rtol=1e-12)


def minibatch_cka(first, second):
    return in_minibatches(first, second, 10)


@pytest.mark.parametrize("cka", [linear_cka, minibatch_cka])
def test_rotation_scale_and_shift_change_nothing(cka):
    first, second = related_features(40)
    expected = cka(first, second)
    assert 0.1 < expected < 0.9
    np.testing.assert_allclose(cka(first @ rotation(7), second), expected, rtol=1e-10)
    np.testing.assert_allclose(cka(-3 * first, 1e-4 * second), expected, rtol=1e-10)
    np.testing.assert_allclose(cka(first + 1e3, second - 5), expected, rtol=1e-8)
    np.testing.assert_allclose(cka(first, first @ rotation(7) * 0.2), 1, rtol=1e-10)


def test_a_linear_map_that_is_no_rotation_changes_it():
    first, second = related_features(40)
    stretched = first * np.float64([10, 1, 1, 1, 1, 1, 1])
    assert abs(linear_cka(stretched, second) - linear_cka(first, second)) > 0.01


def test_the_order_of_examples_does_not_matter_but_must_be_the_same():
    first, second = related_features(40)
    order = np.random.default_rng(1).permutation(40)
    expected = linear_cka(first, second)
    np.testing.assert_allclose(linear_cka(first[order], second[order]), expected, rtol=1e-10)
    assert linear_cka(first[order], second) < expected / 2
    shuffled = unbiased_hsic(first[order], second[order])
    np.testing.assert_allclose(shuffled, unbiased_hsic(first, second), rtol=1e-10)


def test_all_minibatches_that_there_are_average_to_the_criterion_of_all_examples():
    first, second = related_features(8)
    parts = [list(part) for part in itertools.combinations(range(8), 5)]
    found = np.mean([unbiased_hsic(first[part], second[part]) for part in parts])
    np.testing.assert_allclose(found, unbiased_hsic(first, second), rtol=1e-12)


def test_minibatches_converge_to_the_value_of_all_examples():
    first, second = related_features(4096)
    expected = linear_cka(first, second)
    few = abs(in_minibatches(first[:32], second[:32], 16) - expected)
    many = abs(in_minibatches(first, second, 16) - expected)
    assert many < 0.01 < few


def test_unrelated_features_are_near_zero_only_without_bias():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=[2, 512, 100])
    assert linear_cka(first[:32], second[:32]) > 0.5
    assert abs(in_minibatches(first, second, 32)) < 0.05


def test_minibatches_weigh_as_many_examples_as_they_have():
    first, second = related_features(24)
    parts = [slice(0, 16), slice(16, 24)]
    cka = MinibatchCKA()
    for part in parts:
        cka.update([first[part]], [second[part]])
    sums = [
        sum(len(a[part]) * unbiased_hsic(a[part], b[part]) for part in parts)
        for a, b in [(first, second), (first, first), (second, second)]
    ]
    np.testing.assert_allclose(cka.result(), sums[0] / np.sqrt(sums[1] * sums[2]), rtol=1e-12)


def test_further_axes_are_one_vector_and_wide_features_are_summed_whole(monkeypatch):
    first, second = related_features(20)
    expected = linear_cka(first, second)
    cells = np.pad(first, [(0, 0), (0, 1)]).reshape(20, 2, 2, 2)
    np.testing.assert_allclose(linear_cka(cells, second), expected, rtol=1e-12)
    monkeypatch.setattr("vit_tf.analysis.cka._CHUNK", 3)
    np.testing.assert_allclose(linear_cka(cells, second), expected, rtol=1e-12)


def test_features_that_never_change_have_no_cka():
    first, _ = related_features(10)
    constant = np.full([10, 3], 0.1)
    assert np.isnan(linear_cka(first, constant))
    assert np.isnan(in_minibatches(constant, first, 5))


def test_features_of_half_precision_are_summed_in_double():
    first, second = (features.astype(np.float16) for features in related_features(20))
    exact = linear_cka(first.astype(np.float64), second.astype(np.float64))
    assert linear_cka(100 * first, second) == pytest.approx(exact, abs=1e-3)
    assert linear_cka(first, second) == exact


def test_what_cannot_be_compared_is_named():
    x = np.zeros([8, 2])
    with pytest.raises(ValueError, match="given two of 8 and 7 examples"):
        linear_cka(x, x[:7])
    with pytest.raises(ValueError, match="given two of 8 and 7 examples"):
        MinibatchCKA().update([x, x[:7]])
    with pytest.raises(ValueError, match="given two of 8 and 6 examples"):
        MinibatchCKA().update([x], [x[:6]])
    with pytest.raises(ValueError, match=r"4 examples or more; given \(3, 2\).*drop the examples"):
        unbiased_hsic(x[:3], x[:3])
    with pytest.raises(ValueError, match=r"given \(8,\)"):
        linear_cka(x[:, 0], x)
    with pytest.raises(ValueError, match="no representation was given"):
        MinibatchCKA().update([])
    with pytest.raises(ValueError, match="no minibatch was given"):
        MinibatchCKA().result()
