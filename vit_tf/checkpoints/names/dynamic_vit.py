"""Names in DynamicViT's files: those of a DeiT, and of what predicts which tokens are kept.

(raoyongming/DynamicViT, `models/dyvit.py`.)
"""

import dataclasses
from collections.abc import Iterator

import keras

from vit_tf.checkpoints.names import torch_vit
from vit_tf.checkpoints.names.naming import (
    Arrays,
    Tensor,
    count_blocks,
    torch_linear,
    torch_norm,
)

_FIRST = "score_predictor.0.in_conv.0.weight"


def tensors(model: keras.Model) -> Iterator[Tensor]:
    """Names every weight of a DynamicViT."""
    yield from torch_vit.tensors(model, "gamma_{}")
    width = model.width
    for stage in range(len(model.pruning_blocks)):
        weight, key = f"predictor{stage}", f"score_predictor.{stage}"
        yield from torch_norm(f"{weight}/norm", f"{key}.in_conv.0", width)
        yield from torch_linear(f"{weight}/dense_in", f"{key}.in_conv.1", width, width)
        half, quarter = width // 2, width // 4
        yield from torch_linear(f"{weight}/dense_half", f"{key}.out_conv.0", width, half)
        yield from torch_linear(f"{weight}/dense_quarter", f"{key}.out_conv.2", half, quarter)
        yield from torch_linear(f"{weight}/dense_out", f"{key}.out_conv.4", quarter, 2)


def configure(arrays: Arrays) -> dict:
    """Infers a configuration; files tell neither the heads nor where and how much is pruned.

    Blocks are taken to be pruned evenly and to 0.7 of what was left, as published ones are.
    """
    config = torch_vit.configure(arrays) | {"family": "dynamic_vit"}
    stages = count_blocks(arrays, "score_predictor.", ".")
    step = config["depth"] // (stages + 1)
    config["pruning_blocks"] = tuple(step * (stage + 1) for stage in range(stages))
    config["keep_ratios"] = tuple(0.7 ** (stage + 1) for stage in range(stages))
    return config


DYNAMIC_VIT = dataclasses.replace(
    torch_vit.DEIT,
    name="dynamic_vit",
    covers=("DynamicViT",),
    marker=lambda keys, root: torch_vit.is_vit(keys) and _FIRST in keys,
    tensors=tensors,
    configure=lambda arrays: configure(torch_vit.tidy(arrays)),
)
