"""What a model knows of places: cosine similarity of its position embeddings.

Dosovitskiy et al. 2020, section 4.5 and figure 7 (centre): in a trained model the similarity of a
patch's embedding peaks at the patch itself, and patches of its row and column are alike.
"""

import math
from collections.abc import Mapping

import keras
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from vit_tf.analysis.spread import at_most
from vit_tf.layers import SinCos2DPositionEmbedding
from vit_tf.layers.position_embedding import sincos2d

_MOST_MAPS = 14  # in a row and in a column; of larger grids, these are spread evenly
_MOST_ACROSS = 2  # models in a row
_MOST_EXTRA = 2  # class and distillation token


def position_similarity(table: np.ndarray, grid_size: tuple[int, int] | None = None) -> np.ndarray:
    """Cosine similarity between the position embeddings of all pairs of patches.

    Args:
      table: [positions, width] or [1, positions, width]; patches are its last rows, in row-major
        order. Rows before them, of a class or distillation token, are dropped.
      grid_size: (rows, columns) of patches. Default: the square that leaves 0, 1 or 2 rows of other
        tokens.

    Returns:
      float64 [rows, columns, rows, columns]: `[i, j]` is the map of the patch in row i, column j.
      An embedding of zeros is similar to none: 0.

    Raises:
      ValueError: the table has another shape, fewer rows than the grid has patches, or no square
        grid fits it and none is given.
    """
    table = np.asarray(table, np.float64)
    if table.ndim == 3 and len(table) == 1:
        table = table[0]
    if table.ndim != 2:
        raise ValueError(
            "a position table is [positions, width] or [1, positions, width], given "
            f"{list(table.shape)}"
        )
    rows, columns = grid_size or _square(len(table))
    if rows * columns > len(table):
        raise ValueError(
            f"a table of {len(table)} positions is none of {rows}x{columns} patches; give the "
            "grid_size that it was made for"
        )
    patches = table[len(table) - rows * columns :]
    lengths = np.linalg.norm(patches, axis=1, keepdims=True)
    unit = patches / np.where(lengths > 0, lengths, 1)
    return (unit @ unit.T).reshape(rows, columns, rows, columns)


def model_position_similarity(model: keras.Model) -> np.ndarray:
    """`position_similarity` of what a model adds to its patches.

    Args:
      model: a Transformer of this package with learned or fixed sine/cosine positions; of a
        FlexiViT, the grid that it stores.

    Returns:
      float64 [rows, columns, rows, columns].

    Raises:
      ValueError: the model has no position embedding.
    """
    return position_similarity(position_table(model), model.position_grid)


def has_positions(model: keras.Model) -> bool:
    """Whether a model has a position embedding, learned or fixed."""
    return getattr(model, "positions", None) is not None


def position_table(model: keras.Model) -> np.ndarray:
    """The position embedding of a model, [positions, width], with rows of class tokens, if any.

    Raises:
      ValueError: the model has none.
    """
    if not has_positions(model):
        name = getattr(model, "variant", None) or type(model).__name__
        raise ValueError(
            f"the model {name} has no position embedding; ViT, DeiT, FlexiViT and hybrids have, "
            'unless they are made with position_embedding="none"'
        )
    positions = model.positions
    if isinstance(positions, SinCos2DPositionEmbedding):
        return sincos2d(positions.grid_size, model.width)
    return keras.ops.convert_to_numpy(positions.table)[0]


def plot_position_similarity(similarities: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Draws a grid of maps, each at the place of its patch; several models two in a row.

    Args:
      similarities: by the name of a model or checkpoint: [rows, columns, rows, columns]. Of grids
        of more than 14 rows or columns, 14 evenly spread ones are drawn.
      title: of the picture.

    Returns:
      The figure. Colours mean the same in all maps: -1 (dark) to 1 (bright).
    """
    across = min(len(similarities), _MOST_ACROSS)
    down = -(-len(similarities) // across)
    figure = Figure(figsize=(5.4 * across + 0.8, 5.4 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes in panels[len(similarities) :]:
        axes.axis("off")
    colors = matplotlib.colormaps["viridis"].with_extremes(bad="white")
    for axes, (name, similarity) in zip(panels, similarities.items(), strict=False):
        shown = [at_most(range(size), _MOST_MAPS) for size in similarity.shape[:2]]
        maps = similarity[np.ix_(*shown)]
        height, width = similarity.shape[2:]
        gap = max(1, round(max(height, width) / 8))
        image = axes.imshow(
            _mosaic(maps, gap), cmap=colors, vmin=-1, vmax=1, interpolation="nearest"
        )
        for axis, size, places in zip(
            (axes.yaxis, axes.xaxis), (height, width), shown, strict=True
        ):
            middles = np.arange(len(places)) * (size + gap) + (size - 1) / 2
            axis.set_ticks(middles, [str(place + 1) for place in places], fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("column of the patch", fontsize=9)
        axes.set_ylabel("row of the patch", fontsize=9)
        axes.set_title(name, fontsize=9)
    bar = figure.colorbar(image, ax=list(panels), fraction=0.03, pad=0.02, shrink=0.6)
    bar.set_label("cosine similarity", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def _square(positions: int) -> tuple[int, int]:
    """The square grid in a table of so many positions, whatever tokens come before it."""
    for extra in range(min(_MOST_EXTRA, positions - 1) + 1):
        side = math.isqrt(positions - extra)
        if side * side == positions - extra:
            return side, side
    raise ValueError(
        f"no square of patches leaves 0 to {_MOST_EXTRA} of {positions} positions for other "
        "tokens; give grid_size=(rows, columns)"
    )


def _mosaic(maps: np.ndarray, gap: int) -> np.ndarray:
    """[rows, columns, height, width] as one picture, with NaN between the maps."""
    padded = np.pad(maps, ((0, 0), (0, 0), (0, gap), (0, gap)), constant_values=np.nan)
    rows, columns, height, width = padded.shape
    picture = padded.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    return picture[:-gap, :-gap]
