"""Accuracy over the depth of a model."""

from collections.abc import Mapping

from matplotlib.figure import Figure

_MOST_TICKS = 16


def plot_layers(
    accuracies: Mapping[str, Mapping[str, float]], measure: str = "accuracy", title: str = ""
) -> Figure:
    """Draws what a probe measures at each layer.

    Args:
      accuracies: by the name of a curve, such as a model or a data set: by layer, from the first to
        the last, a share in [0, 1]. `LayerProbes` returns such a summary.
      measure: what the values are.
      title: of the picture.

    Returns:
      The figure; curves of other depths than the deepest are drawn from its first layer on.
    """
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    highest = max(max(layers.values()) for layers in accuracies.values())
    for name, layers in accuracies.items():
        values = list(layers.values())
        (line,) = axes.plot(values, marker="o", markersize=4, linewidth=1.6, label=name)
        best = max(range(len(values)), key=values.__getitem__)
        axes.annotate(
            f"{values[best]:.1%}",
            (best, values[best]),
            textcoords="offset points",
            # The highest value above its curve and others below: they are often close.
            xytext=(0, 6 if values[best] == highest else -6),
            verticalalignment="bottom" if values[best] == highest else "top",
            horizontalalignment="center",
            color=line.get_color(),
            fontsize=9,
        )
    names = list(max(accuracies.values(), key=len))
    every = -(-len(names) // _MOST_TICKS)
    axes.set_xticks(
        range(0, len(names), every),
        names[::every],
        rotation=30 if len(names) > 6 else 0,
        horizontalalignment="right" if len(names) > 6 else "center",
        fontsize=8,
    )
    axes.set_ylabel(measure)
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_title(title, fontsize=10)
    axes.margins(y=0.12)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(accuracies) > 1:
        axes.legend(fontsize=8, frameon=False)
    return figure
