"""Images side by side: a row an image, a column what was made of it."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

_LETTERS_PER_INCH = 14  # of a row's title


def image_panels(
    columns: Mapping[str, Sequence[np.ndarray]],
    row_titles: Sequence[str] = (),
    title: str = "",
    panel: float = 1.6,
) -> Figure:
    """Lays images out in a grid without axes.

    Args:
      columns: by title, as many images each, [height, width, 3] as `imshow` takes them.
      row_titles: beside the rows, shortened to their height; as many as images, or none.
      title: of the picture.
      panel: width of an image in inches.

    Returns:
      The figure.
    """
    plain = next(iter(columns.values()))
    height, width = plain[0].shape[:2]
    size = (panel * len(columns) + 0.5, panel * len(plain) * height / width + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    grid = figure.subplots(len(plain), len(columns), squeeze=False)
    for axes_of_column, (name, images) in zip(grid.T, columns.items(), strict=True):
        for axes, image in zip(axes_of_column, images, strict=True):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.imshow(image)
        axes_of_column[0].set_title(name, fontsize=8, pad=3)
    letters = int(panel * height / width * _LETTERS_PER_INCH)
    for axes, name in zip(grid[:, 0], row_titles, strict=False):
        axes.set_ylabel(name if len(name) <= letters else f"{name[: letters - 1]}…", fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure
