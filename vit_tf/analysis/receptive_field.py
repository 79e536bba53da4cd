"""Effective receptive fields: on which pixels a layer's output at one place depends, and how much.

Luo et al. 2016, "Understanding the Effective Receptive Field in Deep Convolutional Neural
Networks", section 2; Raghu et al. 2021, "Do Vision Transformers See Like Convolutional Neural
Networks?", section 4: of a Transformer the fields become global early, of a residual network they
grow with depth.

Gradients need a backend; this file uses TensorFlow's `GradientTape`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from vit_tf.analysis.in_batches import Progress, in_batches
from vit_tf.analysis.layer_outputs import token_groups, trunk_layers
from vit_tf.analysis.spread import at_most

_MOST_PANELS = 7  # in a row; of deeper models, layers are spread evenly


def receptive_fields(
    model: keras.Model,
    images: np.ndarray,
    layers: Sequence[str] | None = None,
    place: tuple[float, float] = (0.5, 0.5),
    batch_size: int = 8,
    progress: Progress = iter,
    **arguments,
) -> dict[str, np.ndarray]:
    """Mean absolute gradients of one place's output at each layer with respect to the pixels.

    The output is the sum over channels of one patch's token, or of one cell of a grid. Behind a
    LayerNorm whose scale is still 1 this sum is always 0, and the gradient says nothing: take
    layers before it, as the default does.

    Args:
      model: a model of this package, in float32: small gradients vanish in float16.
      images: [images, height, width, channels], preprocessed; some tens make fields smooth.
      layers: with a vector a patch; all of `trunk_layers` unless given.
      place: of the output, from (0, 0), the image's top left, to less than (1, 1); by default the
        middle, which of an even grid is the cell right below its centre.
      batch_size: images at a time.
      progress: see `in_batches`.
      **arguments: what else the model's `call` takes, e.g. `patch_size` of a FlexiViT.

    Returns:
      By layer: float32 [height, width], the mean over images and colours, not normalised.

    Raises:
      ValueError: the place is outside of the image, a layer holds no vectors of patches, or there
        is no image.
    """
    if not all(0 <= share < 1 for share in place):
        raise ValueError(
            f"place is two shares, 0 or more and less than 1, such as 0.5; got {place}"
        )
    names = trunk_layers(model) if layers is None else list(layers)

    def gradients(batch: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(batch)
            found = token_groups(model, batch, names, **arguments)
            outputs = {name: _output_at(groups.patches, place) for name, groups in found.items()}
        of_pixels = {name: tape.gradient(output, batch) for name, output in outputs.items()}
        return {name: tf.reduce_mean(tf.abs(g), axis=-1) for name, g in of_pixels.items()}

    of_images = in_batches(gradients, np.asarray(images, np.float32), batch_size, progress)
    return {name: fields.mean(axis=0) for name, fields in of_images.items()}


def half_area(field: np.ndarray) -> float:
    """The smallest share of an image's pixels in which half of a field lies; 0.5 if it is flat."""
    largest_first = np.sort(field, axis=None)[::-1].cumsum(dtype=np.float64)
    pixels = np.searchsorted(largest_first, largest_first[-1] / 2) + 1
    return float(pixels / field.size)


def plot_receptive_fields(
    fields: Mapping[str, Mapping[str, np.ndarray]], title: str = ""
) -> Figure:
    """Draws fields over depth, a row a model, the first layer on the left.

    Args:
      fields: by a model's name: by layer [height, width], see `receptive_fields`.
      title: of the picture.

    Returns:
      The figure. Colours go from 0 to each field's own maximum, by the square root, so that faint
      surroundings can be seen; above stands in which share of the pixels half of the field lies.
    """
    shown = {model: at_most(list(layers), _MOST_PANELS) for model, layers in fields.items()}
    columns = max(map(len, shown.values()))
    figure = Figure(figsize=(1.75 * columns + 0.4, 2.15 * len(fields) + 0.4), layout="constrained")
    grid = figure.subplots(len(fields), columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for row, (model, names) in zip(grid, shown.items(), strict=True):
        for axes, name in zip(row, names, strict=False):
            field = fields[model][name]
            axes.set_axis_on()
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.imshow(field, cmap="inferno", norm=PowerNorm(0.5, vmin=0, vmax=field.max() or 1))
            axes.set_title(f"{name}\nhalf in {half_area(field):.1%}", fontsize=8, pad=3)
        row[0].set_ylabel(model, fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def _output_at(patches: Any, place: tuple[float, float]) -> tf.Tensor:
    """The sum of one cell's channels; images do not depend on each other, so theirs are summed."""
    row, column = (int(share * n) for share, n in zip(place, patches.shape[1:3], strict=True))
    return tf.reduce_sum(tf.cast(patches[:, row, column], tf.float32))
