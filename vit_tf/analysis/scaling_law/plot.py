"""Error over compute, with the laws that were fitted."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import Locator, LogLocator, MaxNLocator, NullFormatter

from vit_tf.analysis.scaling_law.fit import Prediction, ScalingFit
from vit_tf.analysis.scaling_law.points import ScalingPoint, pareto_frontier

_LAW_COLOURS = ("#24292f", "#d6409f")  # beside those of models
_GREY = "#8c959f"
_MOST_MODELS = 10
_CURVE_POINTS = 200
# How far beyond the points a law is drawn where nothing is predicted.
_BEYOND = 10.0
# Which parts of a decade have ticks, up to a ratio of the largest to the smallest error; below the
# least of these, a logarithmic axis has too few round values.
_NARROW = 6.0
_TICKS = {30.0: (1, 2, 3, 5), 1e3: (1, 3), float("inf"): (1,)}
# Where the axis of errors ends, from the smallest and largest error of points and laws.
_BELOW, _ABOVE = 0.7, 1.2


def plot_scaling_law(
    points: Sequence[ScalingPoint],
    fits: Mapping[str, ScalingFit],
    predictions: Mapping[str, Prediction] | None = None,
    unit: str = "",
    title: str = "",
) -> Figure:
    """Draws points, their Pareto frontier, and laws with their intervals.

    A law is a solid line over the compute that it was fitted to and a dashed one beyond; its
    interval is a band. What it was fitted to has rings of its colour.

    Args:
      points: trained models, coloured by `model` where they have one.
      fits: by the name of a law.
      predictions: by the name of a law, at a vector of computes; diamonds with their intervals.
      unit: of compute, such as `"FLOPs"`.
      title: of the picture.

    Returns:
      The figure; both axes are logarithmic.

    Raises:
      ValueError: if there is no point, or predictions are of a law that is not there.
    """
    predictions = predictions or {}
    if not points:
        raise ValueError("there is no point to draw; give at least one trained model")
    if unknown := predictions.keys() - fits.keys():
        raise ValueError(f"predictions of {sorted(unknown)}, while the laws are {list(fits)}")
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    _draw_points(axes, points)
    computes = [point.compute for point in points]
    asked = [compute for prediction in predictions.values() for compute in prediction.compute]
    span = min(computes + asked), max(computes + (asked or [_BEYOND * max(computes)]))
    for number, (name, fit) in enumerate(fits.items()):
        colour = _LAW_COLOURS[number % len(_LAW_COLOURS)]
        _draw_law(axes, name, fit, span, colour)
        if name in predictions:
            _draw_predictions(axes, predictions[name], colour, above=number % 2 == 0)
    ends = [error for fit in fits.values() for error in fit.law(span)]
    _finish(axes, [point.error for point in points] + ends, unit, title)
    return figure


def _draw_points(axes: Axes, points: Sequence[ScalingPoint]) -> None:
    """All points, and a thin line through those that no other beats."""
    compute, error = (np.array([getattr(p, name) for p in points]) for name in ("compute", "error"))
    frontier = pareto_frontier(compute, error)
    axes.plot(
        compute[frontier],
        error[frontier],
        color=_GREY,
        linewidth=0.9,
        label="Pareto frontier",
        zorder=1,
    )
    models = list(dict.fromkeys(point.model for point in points))
    if len(models) > _MOST_MODELS:  # more colours cannot be told apart
        axes.scatter(compute, error, s=22, color="#57606a", label="models", zorder=3)
        return
    for model, colour in zip(models, matplotlib.color_sequences["tab10"], strict=False):
        own = [number for number, point in enumerate(points) if point.model == model]
        axes.scatter(
            compute[own], error[own], s=22, color=colour, label=model or "models", zorder=3
        )


def _draw_law(
    axes: Axes, name: str, fit: ScalingFit, span: tuple[float, float], colour: str
) -> None:
    low, high = fit.compute.min(), fit.compute.max()
    axes.scatter(
        fit.compute, fit.error, s=70, facecolors="none", edgecolors=colour, linewidths=1, zorder=2
    )
    whole = fit.predict(np.geomspace(min(span[0], low), max(span[1], high), _CURVE_POINTS))
    if fit.has_interval:
        axes.fill_between(
            whole.compute, whole.low, whole.high, facecolor=(colour, 0.12), linewidth=0, zorder=0
        )
    axes.plot(whole.compute, whole.error, color=colour, linestyle="--", linewidth=1.2, zorder=2)
    within = np.geomspace(low, high, _CURVE_POINTS)
    label = f"{name}: {fit.law}" if name else str(fit.law)
    axes.plot(within, fit.law(within), color=colour, linewidth=1.8, label=label, zorder=2)


def _draw_predictions(axes: Axes, prediction: Prediction, colour: str, above: bool) -> None:
    # An interval of percentiles need not hold the value itself; without one there is no bar.
    reach = np.clip([prediction.error - prediction.low, prediction.high - prediction.error], 0, 1)
    reach = None if np.isnan(reach).any() else reach
    axes.errorbar(
        prediction.compute,
        prediction.error,
        reach,
        fmt="D",
        markersize=5,
        color=colour,
        markerfacecolor="white",
        capsize=3,
        linewidth=1.2,
        zorder=4,
    )
    for compute, error in zip(prediction.compute, prediction.error, strict=True):
        axes.annotate(
            f"{100 * error:.3g}%",
            (compute, error),
            textcoords="offset points",
            # On the side of its curve where that is not, as error falls with compute.
            xytext=(6, 5) if above else (-6, -5),
            horizontalalignment="left" if above else "right",
            verticalalignment="bottom" if above else "top",
            color=colour,
            fontsize=8,
        )


def _finish(axes: Axes, errors: Sequence[float], unit: str, title: str) -> None:
    low, high = _BELOW * min(errors), _ABOVE * min(max(errors), 1.0)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(_ticks(high / low))
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.07)
    axes.set_xlabel(f"compute, {unit}" if unit else "compute")
    axes.set_ylabel("error")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)


def _ticks(ratio: float) -> Locator:
    """Round errors on an axis of a ratio of its ends."""
    if ratio < _NARROW:
        return MaxNLocator(6, steps=[1, 2, 5, 10])
    return LogLocator(subs=next(parts for most, parts in _TICKS.items() if ratio <= most))
