"""Accuracy over the number of examples a class that a probe learnt from."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

_COLUMNS = 3
_BASELINE_COLOURS = ("#8c959f", "#57606a", "#afb8c1")


class ShotPoint(NamedTuple):
    """Accuracy at a number of shots, with the bounds of its confidence interval, in [0, 1]."""

    accuracy: float
    low: float
    high: float


Curve = Mapping[int, ShotPoint]


def curve_of(summary: Mapping[str, float]) -> Curve:
    """The curve in the summary of a `FewShotProbe`, by shots; one seed has no interval."""
    shots = sorted(int(name.removesuffix("_shot")) for name in summary if name.endswith("_shot"))
    return {
        k: ShotPoint(
            summary[f"{k}_shot"],
            summary.get(f"{k}_shot_low", summary[f"{k}_shot"]),
            summary.get(f"{k}_shot_high", summary[f"{k}_shot"]),
        )
        for k in shots
    }


def plot_shots(
    curves: Mapping[str, Mapping[str, Curve]],
    baselines: frozenset[str] = frozenset(),
    chance: Mapping[str, float] | None = None,
) -> Figure:
    """Draws accuracies over shots, a panel a data set and a line a model.

    Args:
      curves: by data set, by model.
      baselines: models that are drawn dashed and grey.
      chance: by data set the accuracy of guessing, a dotted line.

    Returns:
      The figure. Bands are confidence intervals; the axis of shots is logarithmic.
    """
    columns = 2 if len(curves) == 4 else min(_COLUMNS, len(curves))
    rows = math.ceil(len(curves) / columns)
    models = list(dict.fromkeys(model for of_data in curves.values() for model in of_data))
    size = (6.4 if columns == 1 else 4.2 * columns, 0.8 + 3.4 * rows)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    styles = _styles(models, baselines)
    for axes, (data, of_data) in zip(panels, curves.items(), strict=False):
        for model, curve in of_data.items():
            _draw(axes, curve, styles[model])
        if chance and data in chance:
            axes.axhline(chance[data], color="#8c959f", linestyle=":", linewidth=1.2)
        _finish(axes, data, sorted({shots for curve in of_data.values() for shots in curve}))
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    for row in range(rows):
        panels[row * columns].set_ylabel("accuracy")
    handles = [matplotlib.lines.Line2D([], [], **styles[model]) for model in models]
    labels = list(models)
    if chance:
        handles.append(matplotlib.lines.Line2D([], [], color="#8c959f", linestyle=":"))
        labels.append("chance")
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=min(len(labels), 2 * columns),
        frameon=False,
        fontsize=9,
    )
    return figure


def _styles(models: list[str], baselines: frozenset[str]) -> dict[str, dict]:
    """How each model's line looks, in all panels."""
    colours = list(matplotlib.color_sequences["tab10"])
    colours.remove(matplotlib.color_sequences["tab10"][7])  # the grey
    greys = list(_BASELINE_COLOURS)
    styles = {}
    for model in models:
        palette = greys if model in baselines else colours
        palette.append(palette.pop(0))  # round and round
        styles[model] = {
            "color": palette[-1],
            "linestyle": "--" if model in baselines else "-",
            "marker": "s" if model in baselines else "o",
            "markersize": 4,
            "linewidth": 1.6,
        }
    return styles


def _draw(axes: Axes, curve: Curve, style: Mapping) -> None:
    shots = list(curve)
    accuracies, lows, highs = zip(*curve.values(), strict=True)
    axes.fill_between(
        shots,
        lows,
        highs,
        facecolor=(style["color"], 0.1),
        edgecolor=(style["color"], 0.35),
        linewidth=0.8,
    )
    axes.plot(shots, accuracies, **style)


def _finish(axes: Axes, title: str, shots: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(shots, [str(k) for k in shots])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("examples a class")
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
