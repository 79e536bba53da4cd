"""A picture of a learning-rate schedule."""

from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def plot_schedule(
    steps: Sequence[int],
    rates: Mapping[str, Sequence[float]],
    steps_per_epoch: float | None = None,
    title: str = "",
) -> Figure:
    """Draws learning rates over the steps of a run.

    Args:
      steps: at which the rates are known, rising.
      rates: a curve each, by name; a rate for each of `steps`.
      steps_per_epoch: for a second axis in epochs; None leaves it out.
      title: of the picture.

    Returns:
      The figure.
    """
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, curve in rates.items():
        axes.plot(steps, curve, label=name, linewidth=1.6)
    axes.set_xlim(steps[0], steps[-1])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    axes.set_ylabel("learning rate")
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:.3g}")
    axes.grid(alpha=0.3)
    axes.set_title(title, fontsize=10)
    if len(rates) > 1:
        axes.legend(fontsize=8)
    if steps_per_epoch:
        epochs = axes.secondary_xaxis(
            "top", functions=(lambda x: x / steps_per_epoch, lambda x: x * steps_per_epoch)
        )
        epochs.set_xlabel("epoch")
    return figure
