"""The picture of a scaling law: points by model, frontier, laws, bands, what lies beyond."""

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from vit_tf.analysis.scaling_law import (
    SaturatingLaw,
    ScalingPoint,
    fit_log_log,
    fit_saturating,
    plot_scaling_law,
)

LAW = SaturatingLaw(a=0.26, b=0.35, c=0.09, d=0.01)  # planted
COMPUTE = np.geomspace(0.1, 1e4, 8)
POINTS = [ScalingPoint(c, float(LAW(c)), "small" if c < 10 else "large") for c in COMPUTE.tolist()]
POINTS.append(ScalingPoint(100.0, 0.8, "small"))


def fits(resamples=20):
    compute, error = zip(*((point.compute, point.error) for point in POINTS), strict=True)
    return {
        "saturating": fit_saturating(compute, error, resamples=resamples),
        "log-log": fit_log_log(compute, error, resamples=resamples),
    }


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def bands(axes):
    return [drawn for drawn in axes.collections if isinstance(drawn, PolyCollection)]


def lines(axes):
    """By colour and style, compute and error of each line."""
    return {(line.get_color(), line.get_linestyle()): line.get_data() for line in axes.lines}


def test_points_stand_under_the_name_of_their_model_and_the_frontier_among_them():
    (axes,) = plot_scaling_law(POINTS, {}, title="t").axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert labels(axes) == ["Pareto frontier", "small", "large"]
    drawn = {dots.get_label(): np.asarray(dots.get_offsets()) for dots in axes.collections}
    for model in ("small", "large"):
        expected = [(p.compute, p.error) for p in POINTS if p.model == model]
        np.testing.assert_allclose(drawn[model], expected)
    (frontier,) = axes.lines
    np.testing.assert_allclose(frontier.get_data(), [COMPUTE, LAW(COMPUTE)])


def test_a_law_is_solid_over_its_points_and_dashed_beyond():
    (axes,) = plot_scaling_law(POINTS, {"saturating": fits()["saturating"]}, unit="days").axes
    assert labels(axes)[-1] == "saturating: E = 0.26·(C + 0.01)^-0.35 + 0.09"
    assert axes.get_xlabel() == "compute, days"
    drawn = {style: data for (_, style), data in lines(axes).items() if len(data[0]) > 20}
    np.testing.assert_allclose(drawn["-"][1], LAW(drawn["-"][0]), rtol=1e-3)
    assert (drawn["-"][0].min(), drawn["-"][0].max()) == pytest.approx((0.1, 1e4))
    assert drawn["--"][0].max() == pytest.approx(1e5)  # ten times the last point
    rings = [dots for dots in axes.collections if not len(dots.get_facecolors())]
    np.testing.assert_allclose(rings[0].get_offsets()[:, 0], COMPUTE)


def test_both_laws_have_colours_bands_and_predictions_of_their_own():
    both = fits()
    predictions = {name: fit.predict([1e6]) for name, fit in both.items()}
    (axes,) = plot_scaling_law(POINTS, both, predictions).axes
    assert [label.partition(":")[0] for label in labels(axes)[-2:]] == ["saturating", "log-log"]
    dashed = {colour: data for (colour, style), data in lines(axes).items() if style == "--"}
    assert len(dashed) == 2
    for data in dashed.values():
        assert data[0].max() == pytest.approx(1e6)
    written = [text.get_text() for text in axes.texts]
    assert written == [f"{100 * prediction.error[0]:.3g}%" for prediction in predictions.values()]
    for band, fit in zip(bands(axes), both.values(), strict=True):
        corners = band.get_paths()[0].vertices
        at_end = np.sort(corners[np.isclose(corners[:, 0], 1e6)][:, 1])
        end = fit.predict(1e6)
        np.testing.assert_allclose([at_end[0], at_end[-1]], [end.low, end.high])


def test_a_fit_without_interval_is_drawn_without_band():
    law = fits(resamples=0)["log-log"]
    (axes,) = plot_scaling_law(POINTS, {"": law}, {"": law.predict([1e6])}).axes
    assert not bands(axes)
    assert labels(axes)[-1] == str(law.law)
    assert len(axes.texts) == 1


def test_many_models_share_one_colour():
    points = [ScalingPoint(c, 1 / (c + 1), f"m{c}") for c in range(1, 14)]
    (axes,) = plot_scaling_law(points, {}).axes
    assert labels(axes) == ["Pareto frontier", "models"]


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ((0.2, 0.25), {"15%", "20%", "25%"}),
        ((0.04, 0.5), {"3%", "5%", "10%", "20%", "30%", "50%"}),
        ((0.01, 0.5), {"1%", "3%", "10%", "30%"}),
        ((1e-5, 0.5), {"0.001%", "0.01%", "0.1%", "1%", "10%"}),
    ],
)
def test_errors_are_written_in_percent_at_round_values(errors, expected):
    points = [ScalingPoint(1 + number, error) for number, error in enumerate(errors)]
    (axes,) = plot_scaling_law(points, {}).axes
    low, high = axes.get_ylim()
    ticks = zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    assert {label.get_text() for place, label in ticks if low <= place <= high} == expected


def test_the_axis_ends_near_the_errors_and_not_far_above_all():
    law = fit_log_log([10.0, 100.0], [0.9, 0.01], bins=None, resamples=0)
    points = [ScalingPoint(1.0, 0.9), ScalingPoint(100.0, 0.01)]
    (axes,) = plot_scaling_law(points, {"": law}).axes
    assert law.law(1.0) > 50  # what the law says there is no share
    low, high = axes.get_ylim()
    assert high == pytest.approx(1.2)
    assert low == pytest.approx(0.7 * law.law(1000.0))


def test_nothing_to_draw_and_unknown_laws_are_refused():
    with pytest.raises(ValueError, match="there is no point to draw"):
        plot_scaling_law([], {})
    with pytest.raises(ValueError, match=r"predictions of \['x'\], while the laws are \[\]"):
        plot_scaling_law(POINTS, {}, {"x": fits()["log-log"].predict([1.0])})
