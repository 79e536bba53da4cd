"""The first layer's filters: what a model looks for in patches or pixels.

Dosovitskiy et al. 2020, section 4.5 and figure 7 (left): the principal components of a trained
patch embedding look like a basis for the fine structure within a patch.
"""

from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_COUNT = 28  # components, as in the paper
_COLUMNS = 7
_MOST_ACROSS = 2  # models in a row


class PrincipalFilters(NamedTuple):
    """Principal components of filters.

    Attributes:
      components: [count, height, width, channels], each of length 1, the strongest first. Signs,
        which principal components leave open, are such that the value of largest size is positive.
      shares: of the filters' variance, [count]; decreasing.
    """

    components: np.ndarray
    shares: np.ndarray


def principal_filters(kernel: np.ndarray, count: int = _COUNT) -> PrincipalFilters:
    """Principal components of a convolution's filters around their mean.

    Args:
      kernel: [height, width, channels, filters], two filters at least.
      count: how many components; there are no more than values in a filter, and fewer than filters.

    Returns:
      The components and their shares.

    Raises:
      ValueError: the kernel has another shape, or `count` is less than 1.
    """
    kernel = np.asarray(kernel, np.float64)
    if kernel.ndim != 4 or kernel.shape[-1] < 2 or count < 1:
        raise ValueError(
            "principal filters are of a kernel [height, width, channels, 2 or more filters], one "
            f"at least; given {list(kernel.shape)} and count={count}"
        )
    filters = kernel.reshape(-1, kernel.shape[-1]).T
    centred = filters - filters.mean(axis=0)
    _, strengths, components = np.linalg.svd(centred, full_matrices=False)
    count = min(count, filters.shape[1], len(filters) - 1)
    components = components[:count]
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    components = components * np.where(largest < 0, -1, 1)
    variances = strengths**2
    total = variances.sum()
    shares = variances[:count] / (total if total > 0 else 1)
    return PrincipalFilters(components.reshape(count, *kernel.shape[:3]), shares)


def model_filters(model: keras.Model) -> np.ndarray:
    """The kernel of a model's first layer as it is applied to images.

    Args:
      model: of this package. Of ViT, DeiT, FlexiViT (as stored) and Mixer it is the patch
        embedding; of hybrids and BiT the 7x7 root convolution, standardised; of a convolutional
        stem its first 3x3 convolution.

    Returns:
      float32 [height, width, channels, filters].

    Raises:
      ValueError: the model has none of these.
    """
    root = getattr(getattr(model, "resnet", model), "conv_root", None)
    if root is not None:
        kernel = root.standardized_kernel()
    elif getattr(model, "stem_widths", None):
        kernel = model.stem.convolutions[0].kernel
    elif hasattr(model, "patch_embedding"):
        embedding = model.patch_embedding
        kernel = getattr(embedding, "kernel", None)
        kernel = embedding.projection.kernel if kernel is None else kernel
    else:
        raise ValueError(
            f"the first layer of {type(model).__name__} is not known; give its kernel [height, "
            "width, channels, filters] to principal_filters"
        )
    return keras.ops.convert_to_numpy(keras.ops.cast(kernel, "float32"))


def plot_patch_filters(filters: Mapping[str, PrincipalFilters], title: str = "") -> Figure:
    """Draws components as small images, seven in a row; several models two in a row.

    Args:
      filters: by a model's name; of 3 channels (red, green, blue) or 1.
      title: of the picture.

    Returns:
      The figure. Grey is zero, and each component has a contrast of its own; below it stands its
      share of the variance.

    Raises:
      ValueError: filters of other channels cannot be shown as colours.
    """
    for name, (components, _) in filters.items():
        if components.shape[-1] not in (1, 3):
            raise ValueError(
                f"filters of {components.shape[-1]} channels ({name}) are no colours; those of 1 "
                "or 3 channels can be drawn"
            )
    across = min(len(filters), _MOST_ACROSS)
    down = -(-len(filters) // across)
    rows = -(-max(len(components) for components, _ in filters.values()) // _COLUMNS)
    figure = Figure(figsize=(5.6 * across, (0.92 * rows + 0.3) * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, (name, found) in zip(panels, filters.items(), strict=False):
        _draw_components(axes, *found)
        axes.set_title(name, fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def _draw_components(axes: Axes, components: np.ndarray, shares: np.ndarray) -> None:
    """Draws components seven in a row, each of which is 1 wide or high."""
    height, width = np.array(components.shape[1:3]) / max(components.shape[1:3])
    for number, (component, share) in enumerate(zip(components, shares, strict=True)):
        row, column = divmod(number, _COLUMNS)
        left, top = column * (width + 0.1), -row * (height + 0.27)
        contrast = np.abs(component).max()
        picture = 0.5 + component / (2 * contrast if contrast > 0 else 1)
        extent = (left, left + width, top - height, top)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent)
        axes.text(
            left + width / 2,
            top - height - 0.02,
            f"{share:.1%}",
            fontsize=6.5,
            color="#555555",
            horizontalalignment="center",
            verticalalignment="top",
        )
    rows = -(-len(components) // _COLUMNS)
    axes.set_xlim(-0.05, _COLUMNS * (width + 0.1))
    axes.set_ylim(-rows * (height + 0.27), 0.05)
