"""Pictures of a data set: a batch before and after preprocessing, class counts, image sizes."""

from collections.abc import Sequence

import matplotlib.figure
import numpy as np

from vit_tf.analysis.label_text import label_text

_BLUE, _RED = "#0969da", "#cf222e"
_MAX_BARS = 60


def plot_batch(
    before: Sequence[np.ndarray],
    after: np.ndarray,
    labels: Sequence[int | np.ndarray],
    class_names: Sequence[str],
    title: str = "",
    columns: int = 8,
) -> matplotlib.figure.Figure:
    """Draws each image as it is stored and, below it, as the model sees it.

    Args:
      before: decoded images, uint8 `[h, w, channels]`, of any sizes.
      after: the same ones preprocessed, float `[count, height, width, channels]`; the range of all
        of them together becomes black to white.
      labels: a class number an image, or its targets [classes].
      class_names: a name a class.
      title: a line above all.
      columns: images in a row.

    Returns:
      The figure.
    """
    low, high = after.min(axis=(0, 1, 2)), after.max(axis=(0, 1, 2))
    shown = (after - low) / np.maximum(high - low, 1e-6)
    rows = -(-len(before) // columns)
    figure = matplotlib.figure.Figure(figsize=(1.5 * columns, 3.3 * rows + 0.7))
    grid = figure.subplots(2 * rows, columns, squeeze=False)
    for axis in grid.ravel():
        axis.axis("off")
    for place, image in enumerate(before):
        row, column = 2 * (place // columns), place % columns
        height, width = image.shape[:2]
        upper, lower = grid[row, column], grid[row + 1, column]
        upper.set_anchor("S")  # the two of a pair meet, whatever the stored image's shape
        lower.set_anchor("N")
        upper.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
        name = label_text(labels[place], class_names, most=2)
        upper.set_title(f"{name}\n{width} x {height}", fontsize=8)
        lower.imshow(shown[place].squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    height, width = after.shape[1:3]
    figure.suptitle(
        f"{title}\nabove: as stored, below: as the model sees it, {width} x {height}", fontsize=10
    )
    figure.tight_layout(rect=(0, 0, 1, 0.99))
    return figure


def plot_class_counts(
    counts: np.ndarray, class_names: Sequence[str], title: str = ""
) -> matplotlib.figure.Figure:
    """Draws a bar and a number a class; of many classes, the largest and the smallest.

    Args:
      counts: examples by label, int `[classes]`.
      class_names: a name a class.
      title: a line above the bars.

    Returns:
      The figure. Empty classes are named in red.
    """
    shown = np.arange(len(counts))
    if len(counts) > _MAX_BARS:
        order = np.argsort(-counts, kind="stable")
        shown = np.concatenate([order[: _MAX_BARS // 2], order[-_MAX_BARS // 2 :]])
        title += f"\nthe {_MAX_BARS // 2} largest and smallest of {len(counts)} classes"
    figure = matplotlib.figure.Figure(figsize=(8, 0.24 * len(shown) + 1.3))
    axis = figure.subplots()
    places = np.arange(len(shown))
    axis.barh(places, counts[shown], color=_BLUE, height=0.7)
    axis.set_yticks(places, [class_names[label] for label in shown], fontsize=9)
    for place, label in enumerate(shown):
        colour = "black" if counts[label] else _RED
        text = f" {counts[label]:,}" if counts[label] else " empty"
        axis.text(counts[label], place, text, va="center", fontsize=8, color=colour)
        axis.get_yticklabels()[place].set_color(colour)
    axis.set_ylim(len(shown) - 0.4, -0.6)
    axis.margins(x=0.1)
    axis.set_xlabel("examples")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title, fontsize=10)
    figure.tight_layout()
    return figure


def plot_sizes(
    sizes: np.ndarray, target: tuple[int, int] | None = None, title: str = ""
) -> matplotlib.figure.Figure:
    """Draws histograms of the images' shorter sides and aspect ratios.

    Args:
      sizes: height and width of each image, int `[count, 2]`.
      target: height and width that the model sees; a line marks its shorter side.
      title: a line above both.

    Returns:
      The figure.
    """
    figure = matplotlib.figure.Figure(figsize=(9, 3.4))
    left, right = figure.subplots(1, 2)
    shorter = sizes.min(axis=1)
    left.hist(shorter, bins=30, color=_BLUE)
    if target:
        smaller = int((shorter < min(target)).sum())
        left.axvline(min(target), color=_RED)
        left.set_title(f"{smaller:,} of {len(sizes):,} are below {min(target)} (red)", fontsize=9)
    left.set_xlabel("shorter side, pixels")
    right.hist(sizes[:, 1] / sizes[:, 0], bins=30, color=_BLUE)
    right.set_xlabel("width / height")
    for axis in (left, right):
        axis.set_ylabel("images")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    return figure
