"""The Pareto frontier as it is defined, the envelope as by hand, and what is no point."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_tf.analysis.scaling_law import ScalingPoint, lower_envelope, pareto_frontier

# Few different values, so that some are equal.
POINTS = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from([0.1, 0.2, 0.3, 0.4])), min_size=1, max_size=12
)


def beats(one, other):
    no_worse = one[0] <= other[0] and one[1] <= other[1]
    return no_worse and one != other


@settings(max_examples=200, deadline=None)
@given(POINTS)
def test_the_frontier_is_what_no_point_beats(points):
    unbeaten = [n for n, one in enumerate(points) if not any(beats(other, one) for other in points)]
    found = pareto_frontier(*zip(*points, strict=True))
    assert sorted(found.tolist()) == unbeaten
    assert [points[n][0] for n in found] == sorted(points[n][0] for n in unbeaten)


def test_the_frontier_of_one_point_and_of_none():
    assert pareto_frontier([3.0], [0.5]).tolist() == [0]
    assert pareto_frontier([], []).tolist() == []


def test_the_envelope_is_the_smallest_error_at_the_centre_of_each_bin():
    # log10 of compute from 0 to 3.9: with 0.1 beyond, four bins of 1 with centres 0.5 ... 3.5.
    compute = 10.0 ** np.array([0.0, 0.9, 0.5, 1.0, 3.0, 3.9])
    error = np.array([0.9, 0.7, 0.8, 0.6, 0.2, 0.3])
    centres, smallest = lower_envelope(compute, error, bins=4)
    np.testing.assert_allclose(np.log10(centres), [0.5, 1.5, 3.5])  # the third is empty
    assert smallest.tolist() == [0.7, 0.6, 0.2]
    centres, smallest = lower_envelope(compute, error, bins=1)
    np.testing.assert_allclose(np.log10(centres), [2.0])
    assert smallest.tolist() == [0.2]


def test_points_of_one_compute_share_the_first_bin():
    centres, smallest = lower_envelope([100.0, 100.0], [0.4, 0.3])
    np.testing.assert_allclose(np.log10(centres), [2.01])  # a fifth of 0.1 wide
    assert smallest.tolist() == [0.3]


@pytest.mark.parametrize(
    ("compute", "error", "message"),
    [
        (0.0, 0.5, "a: compute is a positive number; given 0"),
        (-1.0, 0.5, "given -1"),
        (np.inf, 0.5, "given inf"),
        (np.nan, 0.5, "given nan"),
        (1.0, 0.0, r"a: error is a share in \(0, 1\].* given 0: errors are 1 - accuracy"),
        (1.0, -0.1, "errors are 1 - accuracy"),
        (1.0, 23.5, "given 23.5: divide percentages by 100"),
        (1.0, np.nan, "given nan"),
    ],
)
def test_what_has_no_logarithm_is_refused(compute, error, message):
    with pytest.raises(ValueError, match=message):
        ScalingPoint(compute, error, name="a")
    with pytest.raises(ValueError, match=message.removeprefix("a: ")):
        pareto_frontier([1.0, compute], [0.5, error])


def test_the_refused_point_is_named_by_its_number():
    with pytest.raises(ValueError, match="point 1: error"):
        lower_envelope([1.0, 2.0], [0.5, 1.5])


def test_wrong_shapes_and_bins_are_refused():
    with pytest.raises(ValueError, match=r"given shapes \(2,\) and \(1,\)"):
        pareto_frontier([1.0, 2.0], [0.5])
    with pytest.raises(ValueError, match="bins is at least 1; given 0"):
        lower_envelope([1.0, 2.0], [0.5, 0.4], bins=0)
