"""A metric over the values that a sweep tries."""

from collections.abc import Mapping, Sequence

import matplotlib.figure
import numpy as np

_COLOURS = ("#0969da", "#bf3989", "#1a7f37", "#bc4c00", "#8250df", "#57606a")
_SEED = "RunConfig.seed"
_MOST_BARS = 40


def plot_sweep(
    points: Sequence[tuple[Mapping[str, str], float]],
    axes: Sequence[str],
    metric: str,
    lower: bool = False,
) -> matplotlib.figure.Figure:
    """Draws a sweep's metric.

    The numeric axis with the most values lies along x, on a logarithmic scale where its values
    are far apart; each combination of the others is a line through the means over seeds. Without a
    numeric axis each run is a bar.

    Args:
      points: for each run its bindings, values as gin has them, and the metric.
      axes: bindings in which the runs differ.
      metric: its name.
      lower: whether lower values are better: the best is marked.

    Returns:
      The figure.
    """
    axes = [axis for axis in axes if axis != _SEED]
    numeric = {axis: _numbers(points, axis) for axis in axes}
    numeric = {axis: values for axis, values in numeric.items() if values is not None}
    if not numeric:
        return _bars(points, axes, metric, lower)
    x = max(numeric, key=lambda axis: len(set(numeric[axis])))
    others = [axis for axis in axes if axis != x]
    lines: dict[tuple, dict[float, list[float]]] = {}
    for (values, measured), place in zip(points, numeric[x], strict=True):
        key = tuple(values.get(axis) for axis in others)
        lines.setdefault(key, {}).setdefault(place, []).append(measured)
    figure = matplotlib.figure.Figure(figsize=(7.5, 4.2))
    axis = figure.subplots()
    for number, key in enumerate(sorted(lines, key=_sortable)):
        line, colour = lines[key], _COLOURS[number % len(_COLOURS)]
        places = sorted(line)
        label = ", ".join(f"{_short(o)} {v}" for o, v in zip(others, key, strict=True))
        style = ("-", "--", ":")[number // len(_COLOURS) % 3]
        axis.plot(places, [np.mean(line[p]) for p in places], style, color=colour, label=label)
        for place in places:
            values = line[place]
            axis.plot([place] * len(values), values, "o", color=colour, markersize=4)
    _mark_best(axis, numeric[x], [value for _, value in points], lower)
    _label(axis, x, numeric[x])
    axis.set_ylabel(metric)
    if others:
        axis.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axis.margins(x=0.08, y=0.12)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def _bars(
    points: Sequence[tuple[Mapping[str, str], float]],
    axes: Sequence[str],
    metric: str,
    lower: bool,
) -> matplotlib.figure.Figure:
    """A bar a run, the best on top."""
    shown = sorted(points, key=lambda point: point[1] if lower else -point[1])[:_MOST_BARS]
    names = [", ".join(f"{_short(a)} {values.get(a)}" for a in axes) for values, _ in shown]
    figure = matplotlib.figure.Figure(figsize=(7.5, 1.2 + 0.3 * len(shown)))
    axis = figure.subplots()
    values = [value for _, value in shown]
    bars = axis.barh(range(len(shown)), values, color=_COLOURS[0], height=0.6)
    axis.bar_label(bars, [f"{value:.4f}" for value in values], padding=3, fontsize=9)
    axis.set_yticks(range(len(shown)), names)
    axis.invert_yaxis()
    axis.set_xlabel(metric)
    axis.margins(x=0.15)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def _mark_best(axis, places: Sequence[float], values: Sequence[float], lower: bool) -> None:
    best = int(np.argmin(values) if lower else np.argmax(values))
    axis.annotate(
        f"{values[best]:.4f}",
        (places[best], values[best]),
        textcoords="offset points",
        xytext=(0, -14 if lower else 8),
        horizontalalignment="center",
        fontsize=9,
    )


def _label(axis, name: str, values: Sequence[float]) -> None:
    """Ticks at the values that were tried, far ones on a logarithmic scale."""
    tried = sorted(set(values))
    axis.set_xlabel(_short(name))
    if tried[0] > 0 and tried[-1] / tried[0] >= 8:
        axis.set_xscale("log")
        axis.minorticks_off()
    axis.set_xticks(tried, [f"{value:g}" for value in tried])


def _numbers(points: Sequence[tuple[Mapping[str, str], float]], axis: str) -> list[float] | None:
    try:
        numbers = [float(values[axis]) for values, _ in points]
    except (KeyError, ValueError):
        return None
    return numbers if np.all(np.isfinite(numbers)) else None


def _sortable(key: tuple) -> tuple:
    return tuple((0, float(part), "") if _is_number(part) else (1, 0.0, str(part)) for part in key)


def _is_number(text: str | None) -> bool:
    try:
        float(text)
    except (TypeError, ValueError):
        return False
    return True


def _short(binding: str) -> str:
    return binding.rpartition(".")[2]
