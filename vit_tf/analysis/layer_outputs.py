"""The outputs of a model's layers: which there are, and what of them belongs where in the image."""

import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
from keras import ops

from vit_tf.models.features import extract_features

_TRUNK = re.compile(
    r"tokens|(resnet/)?block\d+/(out|unit\d+)"  # what enters the first block, and all blocks' sums
    r"|stage\d+/out"  # grids of models with stages
    r"|root/pool|resnet/gn_root|stem/conv\d+"  # convolutions before it
)


class TokenGroups(NamedTuple):
    """A layer's vectors by what they are of; a group that a model has not is empty.

    Attributes:
      class_tokens: [batch, class tokens, width]; a distillation token is one.
      registers: [batch, registers, width].
      patches: [batch, rows, columns, width].
    """

    class_tokens: Any
    registers: Any
    patches: Any


def trunk_layers(model: keras.Model) -> list[str]:
    """Names of the outputs of a model's layers, the first first, without their branches.

    Of Transformers and Mixers these are `tokens` and each block's `out`, the residual stream; of
    residual networks the root and each unit; of CvT and CMT the grid of each stage.
    """
    return [name for name in model.intermediate_names if _TRUNK.fullmatch(name)]


def token_groups(
    model: keras.Model, images: Any, names: Iterable[str], **arguments
) -> dict[str, TokenGroups]:
    """Runs a model and splits layers' outputs into class tokens, registers and patches.

    Args:
      model: a model of this package.
      images: [batch, height, width, channels], preprocessed.
      names: of layers that hold tokens or a grid, such as those of `trunk_layers`.
      **arguments: what else the model's `call` takes, e.g. `patch_size` of a FlexiViT.

    Returns:
      By name, in the order of `names`.

    Raises:
      ValueError: a layer does not exist, or holds no vectors of patches.
    """
    names = list(names)
    stem = ["stem"] if "stem" in model.intermediate_names else []
    tensors = extract_features(model, images, [*stem, *names], **arguments)
    grid = tuple(tensors["stem"].shape[1:3]) if stem else (0, 0)
    return {name: _split(model, name, tensors[name], grid) for name in names}


def _split(model: keras.Model, name: str, tensor: Any, grid: tuple[int, int]) -> TokenGroups:
    """The groups of a tensor whose tokens end in a grid of patches."""
    rank = len(tensor.shape)
    if rank == 4 and not name.endswith("attn_weights"):
        empty = tensor[:, :0, 0]  # [batch, 0, width]
        return TokenGroups(empty, empty, tensor)
    class_tokens = getattr(model, "num_prefix_tokens", 0)
    before = class_tokens + getattr(model, "num_registers", 0)
    # Some outputs hold patches alone, those before other tokens are put in front of them.
    others = tensor.shape[1] - math.prod(grid) if rank == 3 else None
    if others not in (0, before):
        raise ValueError(
            f"{name!r} of the shape {tuple(tensor.shape)} is no layer with a vector a patch; take "
            "one of analysis.layer_outputs.trunk_layers(model)"
        )
    patches = ops.reshape(tensor[:, others:], (-1, *grid, tensor.shape[-1]))
    return TokenGroups(
        tensor[:, : min(class_tokens, others)], tensor[:, class_tokens:others], patches
    )
