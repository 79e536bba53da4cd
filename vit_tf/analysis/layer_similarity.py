"""How alike the layers of one model are, or those of two.

Raghu et al. 2021, "Do Vision Transformers See Like Convolutional Neural Networks?", section 3: CKA
between all pairs of layers. A Transformer's layers are alike from the first to the last; those of a
residual network fall into stages.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from matplotlib.figure import Figure

from vit_tf.analysis.cka import MinibatchCKA
from vit_tf.analysis.layer_outputs import TokenGroups, token_groups, trunk_layers
from vit_tf.models.features import extract_features

_POOLINGS = ("flat", "token", "gap")
_MOST_TICKS = 16


@dataclasses.dataclass(frozen=True)
class ModelLayers:
    """Layers of a model, and what of them is compared.

    Args:
      model: a model of this package.
      names: out of `model.intermediate_names`; all of `trunk_layers` unless given.
      pooling: "flat" compares all values of all tokens or grid cells (the paper's), "token" the
        class token, "gap" the mean over patches.
      arguments: what else the model's `call` takes, e.g. `patch_size` of a FlexiViT.

    Raises:
      ValueError: the pooling is unknown, or the model has no class token.
    """

    model: keras.Model
    names: Sequence[str] = ()
    pooling: str = "flat"
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.pooling not in _POOLINGS:
            known = ", ".join(map(repr, _POOLINGS))
            raise ValueError(f"pooling must be one of {known}, got {self.pooling!r}")
        if self.pooling == "token" and not getattr(self.model, "num_prefix_tokens", 0):
            raise ValueError("the model has no class token; take pooling='gap' or 'flat'")
        object.__setattr__(self, "names", list(self.names) or trunk_layers(self.model))

    def features(self, images: Any) -> Iterator[np.ndarray]:
        """Of each layer the features [batch, ...] of images."""
        if self.pooling == "flat":
            layers = extract_features(self.model, images, self.names, **self.arguments)
        else:
            groups = token_groups(self.model, images, self.names, **self.arguments)
            layers = {name: self._pooled(name, of_layer) for name, of_layer in groups.items()}
        yield from map(ops.convert_to_numpy, layers.values())

    def _pooled(self, name: str, groups: TokenGroups) -> Any:
        """One vector an image, [batch, width]."""
        if self.pooling == "gap":
            return ops.mean(ops.cast(groups.patches, "float32"), axis=(1, 2))
        if not groups.class_tokens.shape[1]:
            raise ValueError(f"{name!r} holds no class token; leave it out, or take pooling='gap'")
        return groups.class_tokens[:, 0]


class LayerSimilarity(NamedTuple):
    """CKA of all pairs of layers.

    Attributes:
      cka: float64 [rows, columns], at most 1; NaN for a layer that is the same for all images.
      rows: names of layers, the first first.
      columns: names of the layers on the other side.
    """

    cka: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]


def layer_similarity(
    batches: Iterable[Any], first: ModelLayers, second: ModelLayers | None = None
) -> LayerSimilarity:
    """Compares all layers of a model with each other, or with all layers of another model.

    Images go through once. Of a batch only Gram matrices [batch, batch] are kept, and of these only
    sums; see `MinibatchCKA`. More images mean less noise, and so do larger batches of as many.

    Args:
      batches: of images [batch, height, width, channels] as `first.model.preprocessing` says. With
        a second model, pairs of batches of the same images, each as its own model wants them.
      first: the rows.
      second: the columns; the rows again unless given.

    Returns:
      The matrix and its names.

    Raises:
      ValueError: there are no batches, one has fewer than four images, or the two of a pair do not
        have as many.
    """
    cka = MinibatchCKA()
    for batch in batches:
        if second is None:
            cka.update(first.features(batch))
        else:
            images, images_of_second = batch
            cka.update(first.features(images), second.features(images_of_second))
    return LayerSimilarity(cka.result(), first.names, (second or first).names)


def plot_layer_similarity(
    similarity: LayerSimilarity, title: str = "", first: str = "", second: str = ""
) -> Figure:
    """Draws the matrix, brightest where layers are most alike; the first layers are bottom left.

    Args:
      similarity: see `layer_similarity`.
      title: of the picture.
      first: name of the model of the rows.
      second: name of the model of the columns.

    Returns:
      The figure; values below 0 are as dark as 0, NaN is grey.
    """
    figure = Figure(figsize=(6.8, 5.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set_facecolor("#d0d7de")
    picture = axes.imshow(similarity.cka, cmap="inferno", vmin=0, vmax=1, origin="lower")
    rows, columns = similarity.cka.shape
    axes.set_aspect("equal" if rows == columns else "auto")
    every = -(-len(similarity.rows) // _MOST_TICKS)
    axes.set_yticks(range(0, len(similarity.rows), every), similarity.rows[::every], fontsize=8)
    every = -(-len(similarity.columns) // _MOST_TICKS)
    axes.set_xticks(
        range(0, len(similarity.columns), every),
        similarity.columns[::every],
        rotation=45,
        horizontalalignment="right",
        rotation_mode="anchor",
        fontsize=8,
    )
    axes.set_xlabel(second)
    axes.set_ylabel(first)
    axes.set_title(title, fontsize=10)
    axes.spines[:].set_visible(False)
    figure.colorbar(picture, label="linear CKA", shrink=0.8).outline.set_visible(False)
    return figure
