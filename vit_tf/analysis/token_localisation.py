"""Whether a layer's tokens still tell about their own place in the image.

Raghu et al. 2021, "Do Vision Transformers See Like Convolutional Neural Networks?", section 6: CKA
between the token at each place, over many images, and the pixels of the input patch at each place.
Tokens of a model that is read by its class token stay with their own patches up to the last block;
those of a model that averages its tokens (GAP) lose their places.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vit_tf.analysis.cka import MinibatchCKA
from vit_tf.analysis.layer_outputs import token_groups, trunk_layers
from vit_tf.analysis.spread import at_most, evenly_spread

_PLACES = 5  # that are drawn, from the top left to the bottom right
_MOST_ROWS = 6  # of deeper models, layers are spread evenly


def token_localisation(
    model: keras.Model,
    batches: Iterable[Any],
    layers: Sequence[str] | None = None,
    **arguments,
) -> dict[str, np.ndarray]:
    """CKA between tokens and input patches, place by place.

    The images go through once, and of a batch only Gram matrices are kept; a layer's maps take
    8 bytes x places squared, which is much for the fine grids of a convolutional root. Each place
    is compared by itself, so some hundred images are needed before the maps are more than noise.

    Args:
      model: a model of this package.
      batches: of images [batch, height, width, channels] as `model.preprocessing` says.
      layers: with a vector a patch or grid cell; all of `trunk_layers` unless given.
      **arguments: what else the model's `call` takes, e.g. `patch_size` of a FlexiViT.

    Returns:
      By layer float64 [rows * columns, rows, columns]: `[k, i, j]` compares the token at place k,
      in row-major order, with the patch in row i and column j. 1 at most, around 0 and also below
      for what has nothing to do with each other; NaN for a patch that is the same in all images.

    Raises:
      ValueError: there are no batches or one has fewer than four images, a layer holds no vectors
        of patches, or its grid does not divide the image into patches.
    """
    names = trunk_layers(model) if layers is None else list(layers)
    by_layer = {name: MinibatchCKA() for name in names}
    grids = {}
    for images in batches:
        for name, groups in token_groups(model, images, names, **arguments).items():
            tokens = ops.convert_to_numpy(groups.patches)  # [batch, rows, columns, width]
            grids[name] = tokens.shape[1:3]
            patches = _patches(ops.convert_to_numpy(images), grids[name], name)
            by_layer[name].update(_by_place(tokens), _by_place(patches))
    return {name: cka.result().reshape(-1, *grids[name]) for name, cka in by_layer.items()}


def share_at_own_place(maps: np.ndarray) -> float:
    """The share of tokens that are more like their own patch than like any other patch.

    Args:
      maps: of a layer, [rows * columns, rows, columns], see `token_localisation`.
    """
    places = maps.reshape(len(maps), -1)
    others = np.where(np.isnan(places), -np.inf, places)
    np.fill_diagonal(others, -np.inf)
    return float(np.mean(places.diagonal() > others.max(axis=1)))


def plot_token_localisation(maps: Mapping[str, np.ndarray], title: str = "") -> Figure:
    """Draws maps of five tokens, a row a layer.

    Args:
      maps: by a row's name, such as a layer: [rows * columns, rows, columns], see
        `token_localisation`.
      title: of the picture.

    Returns:
      The figure. The tokens lie between the top left and the bottom right corner; each is framed in
      its map. A row has one scale, from 0 to its largest value. Beside it stand this value and
      `share_at_own_place`.
    """
    names = at_most(list(maps), _MOST_ROWS)
    figure = Figure(figsize=(1.5 * _PLACES + 1, 1.5 * len(names) + 0.4), layout="constrained")
    for row, name in zip(figure.subplots(len(names), _PLACES, squeeze=False), names, strict=True):
        rows, columns = maps[name].shape[1:]
        places = zip(
            evenly_spread(range(rows), _PLACES), evenly_spread(range(columns), _PLACES), strict=True
        )
        chosen = [(i, j, maps[name][i * columns + j]) for i, j in places]
        largest = max(np.max(of_token, where=of_token > 0, initial=0) for *_, of_token in chosen)
        for axes, (i, j, of_token) in zip(row, chosen, strict=True):
            axes.set(xticks=[], yticks=[], facecolor="#d0d7de")
            axes.spines[:].set_visible(False)
            axes.imshow(of_token, cmap="inferno", vmin=0, vmax=largest or 1)
            frame = Rectangle(
                (j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="#54aeff", linewidth=1.5
            )
            axes.add_patch(frame)
        shares = f"up to {largest:.2f}\n{share_at_own_place(maps[name]):.0%} at own place"
        row[0].set_ylabel(f"{name}\n{shares}", fontsize=8)
    figure.suptitle(title, fontsize=10)
    return figure


def _patches(images: np.ndarray, grid: tuple[int, int], name: str) -> np.ndarray:
    """The pixels of each cell: [batch, rows, columns, cell height, cell width, channels]."""
    batch, height, width, channels = images.shape
    rows, columns = grid
    if height % rows or width % columns:
        raise ValueError(
            f"{name!r} has {rows}x{columns} vectors, which do not divide images of "
            f"{height}x{width} into patches; leave the layer out, or take images of another size"
        )
    cells = images.reshape(batch, rows, height // rows, columns, width // columns, channels)
    return cells.swapaxes(2, 3)


def _by_place(grid: np.ndarray) -> Iterator[np.ndarray]:
    """What stands at each place, [batch, ...], in row-major order."""
    rows, columns = grid.shape[1:3]
    for place in range(rows * columns):
        yield grid[:, place // columns, place % columns]
