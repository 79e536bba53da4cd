"""What is said of a fit: coefficients, bounds, distances, predictions; what is unknown is told."""

import json

import numpy as np
import pytest

from vit_tf.analysis.scaling_law import (
    LogLogLaw,
    ScalingFit,
    ScalingPoint,
    describe_fit,
    fit_as_json,
    frontier_beyond,
)

# Made by hand: the resampled laws have slopes -0.6 ... -0.4, so that 80 % lie in -0.58 ... -0.42.
LAWS = tuple(LogLogLaw(slope, 0.0) for slope in np.linspace(-0.6, -0.4, 11).tolist())
COMPUTE, ERROR = np.array([4.0, 100.0]), np.array([0.51, 0.13])
FIT = ScalingFit(LogLogLaw(-0.5, 0.0), COMPUTE, ERROR, LAWS, resamples=12, confidence=0.8)
UNSURE = ScalingFit(FIT.law, COMPUTE, ERROR, LAWS[:1], resamples=12, confidence=0.8)
BEYOND = [ScalingPoint(400.0, 0.1), ScalingPoint(1e4, 0.02)]


def test_the_text_has_formula_distances_coefficients_and_predictions():
    text = describe_fit("line", FIT, FIT.predict([1e4]), BEYOND)
    assert text.splitlines() == [
        "line: E = 10^0·C^-0.5",
        "fitted to 2 points, mean distance 2.00 percentage points",
        "2 frontier points beyond, mean distance 3.00 percentage points",
        "",
        "coefficient  value   10 %   90 %",
        "slope         -0.5  -0.58  -0.42",
        "intercept        0      0      0",
        "",
        "compute   error    10 %    90 %",
        "  1e+04  1.00 %  0.48 %  2.09 %",
    ]


def test_the_text_tells_what_is_unknown():
    lines = describe_fit("line", UNSURE, UNSURE.predict([1e4]), beyond=[]).splitlines()
    assert "0 frontier points beyond, mean distance unknown" in lines
    (told,) = [line for line in lines if line.startswith("no intervals")]
    assert "only 1 of 12 resamples" in told
    assert "slope         -0.5     -     -" in lines
    assert "  1e+04  1.00 %     -     -" in lines


def test_json_has_the_same_values_and_none_for_what_is_unknown():
    found = fit_as_json(FIT, FIT.predict([1e4]), BEYOND)
    assert found["coefficients"]["slope"] == pytest.approx(
        {"value": -0.5, "low": -0.58, "high": -0.42}
    )
    (prediction,) = found["predictions"]
    assert prediction == pytest.approx(
        {"compute": 1e4, "error": 0.01, "low": 10**-2.32, "high": 10**-1.68}
    )
    assert found["fitted_to"] == [
        {"compute": 4.0, "error": 0.51},
        {"compute": 100.0, "error": 0.13},
    ]
    assert (found["mean_distance_points"], found["mean_distance_points_beyond"]) == pytest.approx(
        (2, 3)
    )
    assert (found["resamples"], found["resamples_fitted"], found["confidence"]) == (12, 11, 0.8)

    unsure = fit_as_json(UNSURE, UNSURE.predict([1e4]))
    assert unsure["coefficients"]["slope"] == {"value": -0.5, "low": None, "high": None}
    assert unsure["predictions"][0]["low"] is None
    assert unsure["beyond"] is None and unsure["mean_distance_points_beyond"] is None
    json.dumps([found, unsure], allow_nan=False)


def test_what_lies_beyond_is_the_frontier_of_all_points():
    points = [ScalingPoint(1, 0.5), ScalingPoint(10, 0.2), ScalingPoint(20, 0.3), *BEYOND]
    assert frontier_beyond(points, 5) == [points[1], *BEYOND]
    assert frontier_beyond(points, 10) == BEYOND
    assert frontier_beyond(points, 1e4) == []
