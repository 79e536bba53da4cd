"""Attention of a model over images: its rollout, of single layers and heads, and of the pooling.

Which tokens' attention is shown is what the model's head reads: the class token's, with a
distillation token the mean of both, and without such tokens the mean over the patches' (Dosovitskiy
et al. 2020, appendix D.8, shows the class token's rollout). Columns of other tokens than patches
are left out.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from matplotlib.figure import Figure

from vit_tf.analysis.attention_overlay import attention_overlay
from vit_tf.analysis.attention_rollout import attention_rollout, rollout_map
from vit_tf.analysis.image_panels import image_panels
from vit_tf.analysis.in_batches import Progress, in_batches
from vit_tf.analysis.kept_patches import among_all_tokens, kept_positions_of_blocks
from vit_tf.models.features import extract_features
from vit_tf.suggestions import did_you_mean

MAPS = ("rollout", "layers", "heads", "pool")
_POOL = "map_head/attn_weights"


def attention_layers(model: keras.Model) -> list[str]:
    """Names of the intermediates that hold self-attention weights, from the first block on."""
    names = getattr(model, "intermediate_names", ())
    return [n for n in names if n.startswith("block") and n.endswith("/attn_weights")]


def lacks_attention(model: keras.Model) -> str:
    """Why there is no attention between the patches of a model from first to last; else empty."""
    if attention_layers(model):
        return ""
    if any(name.endswith("_weights") for name in getattr(model, "intermediate_names", ())):
        return "has attention between tokens that are others in each stage"
    return "has no attention between tokens"


@dataclasses.dataclass(frozen=True)
class SelfAttention:
    """Attention between a batch's tokens, and which tokens they are.

    Args:
      layers: of each layer, the first first, float32 [batch, heads, queries, keys].
      grid_size: (rows, columns) of patches, which are the last tokens.
      class_tokens: how many tokens stand first that images are classified by.
      before_patches: all tokens before the patches, registers among them.
    """

    layers: list[Any]
    grid_size: tuple[int, int]
    class_tokens: int
    before_patches: int

    def rollout(self) -> Any:
        """Attention rollout through all layers as a map, [batch, rows, columns]."""
        return self._map(attention_rollout(self.layers)[-1])

    def heads(self) -> Any:
        """Maps of every layer and head, [batch, layers, heads, rows, columns]."""
        maps = []
        for weights in self.layers:
            heads, tokens = weights.shape[1:3]
            of_heads = self._map(ops.reshape(weights, (-1, tokens, tokens)))
            maps.append(ops.reshape(of_heads, (-1, heads, *self.grid_size)))
        return ops.stack(maps, axis=1)

    def _map(self, weights: Any) -> Any:
        return rollout_map(weights, self.grid_size, self.class_tokens, self.before_patches)


def self_attention(model: keras.Model, images: Any, **arguments) -> SelfAttention:
    """Attention between tokens of a model of this package.

    Of a model that drops patches the dropped ones attend to nothing, and nothing attends to them.

    Args:
      model: the model.
      images: [batch, height, width, channels], preprocessed.
      **arguments: what else the model's `call` takes, e.g. `patch_size` of a FlexiViT.

    Raises:
      ValueError: the model has no attention between tokens, or between others in each stage.
    """
    names = attention_layers(model)
    if not names:
        raise ValueError(
            f"the model {_name(model)} {lacks_attention(model)}; give a Transformer of one stage, "
            "such as vit_b16"
        )
    kept = kept_positions_of_blocks(model)
    found = extract_features(model, images, ["stem", *names, *set(kept.values())], **arguments)
    layers = []
    for index, name in enumerate(names):
        weights = ops.cast(found[name], "float32")
        if index in kept:
            weights = among_all_tokens(weights, found[kept[index]], math.prod(model.grid_size))
        layers.append(weights)
    class_tokens = model.num_prefix_tokens
    return SelfAttention(
        layers,
        tuple(found["stem"].shape[1:3]),
        class_tokens,
        class_tokens + model.num_registers,
    )


def attention_maps(
    model: keras.Model,
    images: np.ndarray,
    kinds: Sequence[str] = ("rollout",),
    batch_size: int = 8,
    progress: Progress = iter,
    **arguments,
) -> dict[str, np.ndarray]:
    """What a model attends to in images.

    Args:
      model: a Transformer of this package.
      images: [images, height, width, channels], preprocessed.
      kinds: out of `MAPS`, see below.
      batch_size: images at a time. A layer's attention of 8 images of ViT-L/16 at 384 pixels is
        170 MB; memory does not grow with depth, as layers are freed when their maps are made.
      progress: see `in_batches`.
      **arguments: what else the model's `call` takes, e.g. `patch_size` of a FlexiViT.

    Returns:
      Of each kind a float32 array over (rows, columns) of patches: `"rollout"` [images, rows,
      columns] through all layers, the map that exports serve; `"layers"` [images, layers, rows,
      columns], the mean over heads; `"heads"` [images, layers, heads, rows, columns]; `"pool"`
      [images, heads, rows, columns], attention of the probe that pools patches. None is
      renormalised: what goes to other tokens than patches is missing from the sum.

    Raises:
      ValueError: a kind is unknown, or the model has no such attention.
    """
    for kind in kinds:
        if kind not in MAPS:
            hint = did_you_mean(kind, MAPS)
            raise ValueError(
                f"attention map {kind!r} is unknown; there are {', '.join(map(repr, MAPS))}.{hint}"
            )
    if "pool" in kinds and not pools_by_attention(model):
        raise ValueError(
            f"the model {_name(model)} does not pool by attention, so it has no map 'pool'; models "
            'of pool="map" have, such as vit_b16_map'
        )

    def compute(batch: Any) -> dict[str, Any]:
        found, maps = None, {}
        if set(kinds) - {"pool"}:
            found = self_attention(model, batch, **arguments)
        if "rollout" in kinds:
            maps["rollout"] = found.rollout()
        if "heads" in kinds or "layers" in kinds:
            heads = found.heads()
            maps |= {"layers": ops.mean(heads, axis=2), "heads": heads}
        if "pool" in kinds:
            maps["pool"] = _pool_map(model, batch, **arguments)
        return {kind: maps[kind] for kind in kinds}

    return in_batches(compute, images, batch_size, progress)


def pools_by_attention(model: keras.Model) -> bool:
    """Whether a probe's attention pools the model's patches (MAP)."""
    return _POOL in getattr(model, "intermediate_names", ())


def plot_attention_maps(
    images: np.ndarray | Mapping[str, np.ndarray],
    maps: Mapping[str, np.ndarray],
    row_titles: Sequence[str] = (),
    with_image: bool = True,
    title: str = "",
    panel: float = 1.6,
) -> Figure:
    """Lays attention maps over images: a row an image, a column a map.

    Args:
      images: uint8 [images, height, width, 3], as the model saw them; or by the columns' titles,
        where columns are models that see other sizes or crops.
      maps: by a column's title, such as a layer or a model: [images, rows, columns]. Each map's
        smallest value is dark and its largest bright, so panels differ in scale.
      row_titles: beside the rows, shortened to their height; as many as images, or none.
      with_image: whether a first column shows the images themselves.
      title: of the picture.
      panel: width of an image in inches.

    Returns:
      The figure.

    Raises:
      ValueError: there are not as many maps as images.
    """
    seen = images if isinstance(images, Mapping) else dict.fromkeys(maps, images)
    for name, of_images in maps.items():
        if len(of_images) != len(seen[name]):
            raise ValueError(f"{len(seen[name])} images, but {len(of_images)} maps of {name!r}")
    columns = {"": next(iter(seen.values()))} if with_image else {}
    for name, of_images in maps.items():
        pairs = zip(seen[name], of_images, strict=True)
        columns[name] = [attention_overlay(image, attention) for image, attention in pairs]
    return image_panels(columns, row_titles, title, panel)


def _pool_map(model: keras.Model, images: Any, **arguments) -> Any:
    """The probe's attention, [batch, heads, rows, columns]."""
    found = extract_features(model, images, ["stem", _POOL], **arguments)
    heads = found[_POOL].shape[1]
    weights = ops.cast(found[_POOL], "float32")  # [batch, heads, 1, patches]
    return ops.reshape(weights, (-1, heads, *found["stem"].shape[1:3]))


def _name(model: keras.Model) -> str:
    return getattr(model, "variant", None) or type(model).__name__
