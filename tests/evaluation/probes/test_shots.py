import numpy as np
import pytest

from vit_tf.data.subsets import draw_per_class
from vit_tf.evaluation.probes.shots import count_short_classes, nested_shots

_SHOTS = (1, 5, 10, 25)


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden/behaviour/few_shot_ridge/io.npz") as arrays:
        return dict(arrays)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_support_sets_are_the_references_in_its_order(golden, seed):
    supports = nested_shots(golden["train_labels"], _SHOTS, seed)
    for shots in _SHOTS:
        np.testing.assert_array_equal(supports[shots], golden[f"seed{seed}/shots{shots}/indices"])


def test_each_number_of_shots_alone_draws_the_same_and_smaller_ones_are_within_larger_ones():
    labels = np.random.default_rng(3).integers(0, 7, 400)
    supports = nested_shots(labels, _SHOTS, seed=5)
    for shots, larger in zip(_SHOTS, (*_SHOTS[1:], _SHOTS[-1]), strict=True):
        np.testing.assert_array_equal(supports[shots], draw_per_class(labels, shots, 5))
        assert set(supports[shots]) <= set(supports[larger])
        np.testing.assert_array_equal(np.bincount(labels[supports[shots]]), [shots] * 7)


def test_a_class_of_few_examples_gives_all_it_has_and_is_counted():
    labels = np.array([0, 1, 1, 1, 3, 3, 3, 3])
    supports = nested_shots(labels, (1, 3), seed=0)
    np.testing.assert_array_equal(np.bincount(labels[supports[1]]), [1, 1, 0, 1])
    np.testing.assert_array_equal(np.bincount(labels[supports[3]]), [1, 3, 0, 3])
    assert count_short_classes(labels, 4, shots=1) == 1  # class 2, of which there are none
    assert count_short_classes(labels, 4, shots=4) == 3
