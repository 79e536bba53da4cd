"""A sheet of images with what the model said and what is true."""

from collections.abc import Sequence

import matplotlib.figure
import numpy as np

_RIGHT, _WRONG = "#1a7f37", "#cf222e"


def plot_predictions(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    columns: int = 8,
    rows: int = 4,
) -> matplotlib.figure.Figure:
    """Draws images with predicted and true classes, the surest mistakes first.

    Half of the sheet is for mistakes, ordered by how sure the model was; the rest are the first
    images that it got right. Either takes the room that the other leaves.

    Args:
      images: float [count, height, width, channels], the first `count` of a split, in any range;
        the range of all of them together becomes black to white.
      labels: int [count].
      probabilities: float [count, classes].
      class_names: a name a class.
      columns: images in a row of the sheet.
      rows: rows of the sheet.

    Returns:
      The figure.
    """
    predictions = probabilities.argmax(axis=1)
    sureness = probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions != labels)
    wrong = wrong[np.argsort(-sureness[wrong], kind="stable")]
    right = np.flatnonzero(predictions == labels)
    room = columns * rows
    wrong = wrong[: max(room // 2, room - len(right))]
    shown = np.concatenate([wrong, right[: room - len(wrong)]])
    low, high = images.min(), images.max()
    pixels = (images - low) / max(high - low, 1e-6)

    figure = matplotlib.figure.Figure(figsize=(1.45 * columns, 1.75 * rows + 0.5))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, index in zip(axes, shown, strict=False):
        is_right = predictions[index] == labels[index]
        axis.imshow(pixels[index], cmap="gray", interpolation="nearest", vmin=0, vmax=1)
        said = f"{class_names[predictions[index]]} ({100 * sureness[index]:.0f} %)"
        axis.set_title(
            said if is_right else f"{said}\ntrue: {class_names[labels[index]]}",
            fontsize=9,
            color=_RIGHT if is_right else _WRONG,
        )
    correct = int((predictions == labels).sum())
    figure.suptitle(
        f"{correct} of the first {len(labels)} right ({100 * correct / len(labels):.1f} %); "
        "mistakes first, the surest leading",
        fontsize=11,
    )
    figure.tight_layout()
    return figure
