"""Loss and accuracy over the steps of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure
import matplotlib.lines

_COLOURS = {"train": "#8c959f", "eval": "#0969da"}
_LABELS = {"train": "training batches", "eval": "evaluation split"}


def plot_learning_curve(
    rows: Sequence[Mapping[str, Any]], metric: str = "accuracy"
) -> matplotlib.figure.Figure:
    """Draws a run's loss and metric, of training and of evaluation, over its steps.

    Args:
      rows: rows of `metrics.jsonl`: dicts with `"step"`, `"kind"`, `"loss"` and the metric; a kind
        that does not have it is left out.
      metric: name of the value beside the loss.

    Returns:
      The figure, two panels wide.
    """
    figure = matplotlib.figure.Figure(figsize=(10, 3.6))
    for axis, name in zip(figure.subplots(1, 2), ("loss", metric), strict=True):
        ends = []
        for kind, colour in _COLOURS.items():
            points = [
                (row["step"], row[name]) for row in rows if row["kind"] == kind and name in row
            ]
            if points:
                marker = "o" if kind == "eval" else None
                axis.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4)
                ends.append((points[-1], colour))
        # The larger value above its line's end and the smaller below: they are often close.
        for (point, colour), side in zip(
            sorted(ends, key=lambda end: -end[0][1]), ("bottom", "top"), strict=False
        ):
            axis.annotate(
                f"{point[1]:.3f}",
                point,
                textcoords="offset points",
                xytext=(5, 0),
                verticalalignment=side,
                color=colour,
                fontsize=9,
            )
        axis.set_xlabel("step")
        axis.set_title(name, fontsize=11)
        axis.margins(x=0.1)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    handles = [matplotlib.lines.Line2D([], [], color=colour) for colour in _COLOURS.values()]
    figure.legend(handles, _LABELS.values(), loc="upper center", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    return figure
