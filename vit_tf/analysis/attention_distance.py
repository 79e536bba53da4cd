"""Mean attention distance: how far in the image each head of a Transformer looks.

Dosovitskiy et al. 2020, section 4.5 and figure 7 (right); Raghu et al. 2021, section 4: the
counterpart of a convolution's receptive field. Heads of low layers look near and far, those of high
layers far.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import matplotlib
import numpy as np
from keras import ops
from matplotlib.figure import Figure

from vit_tf.analysis.attention_maps import self_attention
from vit_tf.analysis.in_batches import Progress, in_batches

_SMALLEST_SUM = 1e-30


def patch_distances(
    grid_size: tuple[int, int], patch_size: float | tuple[float, float]
) -> np.ndarray:
    """Euclidean distances in pixels between the centres of patches.

    Args:
      grid_size: (rows, columns) of patches.
      patch_size: side of a patch in pixels, or (height, width).

    Returns:
      float64 [patches, patches], patches in row-major order.
    """
    height, width = np.broadcast_to(patch_size, 2)
    row, column = np.mgrid[: grid_size[0], : grid_size[1]].reshape(2, -1)
    return np.hypot(
        height * (row[:, None] - row[None]),
        width * (column[:, None] - column[None]),
    )


def attention_distance(
    attention: Sequence[Any],
    grid_size: tuple[int, int],
    patch_size: float | tuple[float, float],
    renormalize: bool = False,
) -> np.ndarray:
    """Mean distance between querying and attended patch, weighted by attention.

    Args:
      attention: of each layer, the first first, the weights [images, heads, queries, keys] of the
        same tokens, of which patches are the last; rows and columns of others are dropped.
      grid_size: (rows, columns) of patches.
      patch_size: side of a patch in pixels, or (height, width).
      renormalize: whether rows are divided by their sums after that. By default they are not, as in
        the paper's public re-implementation: attention to a class token counts as distance 0, so
        that a head which looks there alone seems local. True measures patches among themselves.

    Returns:
      float64 [layers, heads] in pixels, the mean over queries and images.

    Raises:
      ValueError: there is no layer, or there are fewer tokens than patches.
    """
    if not len(attention):
        raise ValueError("attention of no layer was given; a distance needs that of one at least")
    distances = patch_distances(grid_size, patch_size)
    layers = [
        ops.convert_to_numpy(_image_distances(ops.cast(weights, "float64"), distances, renormalize))
        for weights in attention
    ]
    return np.mean(layers, axis=1)


def model_attention_distance(
    model: keras.Model,
    images: np.ndarray,
    renormalize: bool = False,
    batch_size: int = 8,
    progress: Progress = iter,
    **arguments,
) -> np.ndarray:
    """Mean attention distance of a model on images; the paper takes 128 of them.

    Of each batch every layer's attention becomes one number a head before the next layer's is
    needed, so memory does not grow with depth.

    Args:
      model: a Transformer of this package. A pixel is one of its input: distances of models of
        other image sizes have other units.
      images: [images, height, width, channels], preprocessed.
      renormalize: see `attention_distance`.
      batch_size: images at a time.
      progress: see `in_batches`.
      **arguments: what else the model's `call` takes, e.g. `patch_size` of a FlexiViT.

    Returns:
      float64 [layers, heads] in pixels.

    Raises:
      ValueError: the model has no attention between tokens.
    """
    height, width = images.shape[1:3]

    def compute(batch: Any) -> dict[str, Any]:
        found = self_attention(model, batch, **arguments)
        rows, columns = found.grid_size
        distances = patch_distances(found.grid_size, (height / rows, width / columns))
        distances = ops.convert_to_tensor(distances, "float32")
        of_layers = [_image_distances(w, distances, renormalize) for w in found.layers]
        return {"distance": ops.stack(of_layers, axis=1)}  # [batch, layers, heads]

    found = in_batches(compute, images, batch_size, progress)["distance"]
    return found.astype(np.float64).mean(axis=0)


def plot_attention_distance(
    distances: Mapping[str, np.ndarray],
    uniform: Mapping[str, float] | None = None,
    title: str = "",
) -> Figure:
    """Draws a point a head over the layers, and a line through each layer's mean.

    Args:
      distances: by a model's name: [layers, heads] in pixels.
      uniform: by the same names: the distance of attention that is the same everywhere, which is
        the mean of `patch_distances`; a dashed line.
      title: of the picture.

    Returns:
      The figure; every model has its colour, and models stand side by side in a layer.
    """
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    colors = matplotlib.colormaps["tab10"].colors
    width = 0.6 / len(distances)
    for number, (name, layers) in enumerate(distances.items()):
        color = colors[number % len(colors)]
        layers = np.asarray(layers)
        place = np.arange(len(layers)) + width * (number - (len(distances) - 1) / 2)
        heads = np.repeat(place, layers.shape[1])
        axes.scatter(heads, layers.ravel(), s=18, color=color, alpha=0.65, linewidths=0)
        axes.plot(place, layers.mean(axis=1), color=color, linewidth=1.4, label=name)
        if uniform is not None:
            axes.axhline(uniform[name], color=color, linewidth=1, linestyle="--", alpha=0.7)
    deepest = max(len(layers) for layers in distances.values())
    axes.set_xticks(range(0, deepest, 1 if deepest <= 24 else 4))
    axes.set_xlabel("layer")
    axes.set_ylabel("mean attention distance (pixels)")
    farthest = max([*(np.max(layers) for layers in distances.values()), *(uniform or {}).values()])
    axes.set_ylim(0, 1.08 * farthest)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(distances) > 1:
        axes.legend(fontsize=8, frameon=False)
    return figure


def _image_distances(weights: Any, distances: Any, renormalize: bool) -> Any:
    """Mean over queries: [images, heads, queries, keys] -> [images, heads]."""
    patches = distances.shape[0]
    others = weights.shape[-1] - patches
    if others < 0:
        raise ValueError(
            f"attention between {weights.shape[-1]} tokens cannot be between {patches} patches; "
            "give the grid_size of the attention's own patches"
        )
    # The rows of tokens that are gone are zero: they attend to nothing, and do not count.
    there = ops.any(weights[:, :, others:] > 0, axis=-1)
    weights = weights[:, :, others:, others:]
    reach = ops.einsum("ihqk,qk->ihq", weights, distances)
    if renormalize:
        # A row that attends to no patch at all has no distance but 0.
        reach = reach / ops.maximum(ops.sum(weights, axis=-1), _SMALLEST_SUM)
    queries = ops.sum(ops.cast(there, reach.dtype), axis=-1)
    return ops.sum(reach, axis=-1) / ops.maximum(queries, 1)
