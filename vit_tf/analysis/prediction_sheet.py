"""A sheet of images with what the model said and what is true."""

from collections.abc import Sequence

import matplotlib.figure
import numpy as np

from vit_tf.analysis.label_text import label_set, label_text

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
      labels: int [count], or targets [count, classes] of examples with several labels: any of
        them is right, and examples without one are not shown.
      probabilities: float [count, classes].
      class_names: a name a class.
      columns: images in a row of the sheet.
      rows: rows of the sheet.

    Returns:
      The figure.
    """
    predictions = probabilities.argmax(axis=1)
    sureness = probabilities.max(axis=1)
    true = [label_set(label) for label in labels]
    is_right = np.array([said in those for said, those in zip(predictions, true, strict=True)])
    labelled = np.array([bool(those) for those in true])
    wrong = np.flatnonzero(labelled & ~is_right)
    wrong = wrong[np.argsort(-sureness[wrong], kind="stable")]
    right = np.flatnonzero(is_right)
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
        axis.imshow(pixels[index], cmap="gray", interpolation="nearest", vmin=0, vmax=1)
        said = f"{class_names[predictions[index]]} ({100 * sureness[index]:.0f} %)"
        axis.set_title(
            said
            if is_right[index]
            else f"{said}\ntrue: {label_text(labels[index], class_names, 2)}",
            fontsize=9,
            color=_RIGHT if is_right[index] else _WRONG,
        )
    count, without = int(labelled.sum()), int((~labelled).sum())
    left_out = f", {without} without a label left out" if without else ""
    figure.suptitle(
        f"{len(right)} of the first {count} right ({100 * len(right) / max(count, 1):.1f} %)"
        f"{left_out}; mistakes first, the surest leading",
        fontsize=11,
    )
    figure.tight_layout()
    return figure
