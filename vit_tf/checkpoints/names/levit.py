"""Names in the files of facebookresearch/LeViT, and timm's (`levit.py` in both).

Files whose batch norms the reference has folded are read too: a weight and a bias then stand where
the others have a layer and its norm. A model that `fold_batch_norms` made is written so.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator

import keras
import numpy as np

from vit_tf.checkpoints.files.stored import StoredArray
from vit_tf.checkpoints.names.levit_configuration import configure
from vit_tf.checkpoints.names.naming import (
    Arrays,
    Naming,
    Tensor,
    batch_counters,
    is_counter,
    torch_weight,
)
from vit_tf.checkpoints.names.own import weights_by_path
from vit_tf.layers.offset_attention import BIASES, OffsetAttention, offset_indices

_INDICES = "attention_bias_idxs"
_BATCH_NORM_EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Spelling:
    """How files call the parts of a LeViT.

    Args:
        stem: Of a convolution's number.
        attention: Of an attention layer, given its stage, its number there, and its number among
            all residual branches and sub-sampling layers.
        mlp: Of an MLP, given the same.
        down_attention: Of a sub-sampling layer, given the stage before it and its number among all.
        down_mlp: Of the MLP behind it.
        parts: Our names of the layers in all these -> those of the file.
        linear: What a layer is called beside its norm.
        head_linear: The same, of a head.
    """

    stem: Callable[[int], str]
    attention: Callable[[int, int, int], str]
    mlp: Callable[[int, int, int], str]
    down_attention: Callable[[int, int], str]
    down_mlp: Callable[[int, int], str]
    parts: dict[str, str]
    linear: str
    head_linear: str

    def branches(self, model: keras.Model) -> dict[str, str]:
        """Path of every attention layer and MLP of a model -> its name in the file."""
        names, count = {}, 0
        for index, depth in enumerate(model.depth):
            if index:
                names[f"down{index - 1}/attn"] = self.down_attention(index - 1, count)
                names[f"down{index - 1}/mlp"] = self.down_mlp(index - 1, count + 1)
                count += 1 + bool(model.down_mlp_ratio)
            for layer in range(depth):
                place = f"stage{index}/{{}}{layer:02d}"
                names[place.format("attn")] = self.attention(index, layer, count)
                names[place.format("mlp")] = self.mlp(index, layer, count + 1)
                count += 1 + bool(model.mlp_ratio)
        return names

    def tensors(self, model: keras.Model) -> Iterator[Tensor]:
        """Names every weight of a LeViT, folded or not."""
        branches = self.branches(model)
        for path, weight in weights_by_path(model).items():
            shape = tuple(weight.shape)
            if path.endswith(BIASES):
                key = f"{branches[path.rpartition('/')[0]]}.{BIASES}"
                rows, columns, heads = shape
                yield Tensor(path, (key,), (heads, rows * columns), "linear", role="grid")
                continue
            module, is_norm = self._module(path, branches)
            if not model.norms_folded:
                is_head = path.startswith("head")
                module += ".bn" if is_norm else f".{self.head_linear if is_head else self.linear}"
            role = "head" if re.fullmatch(r"head(_dist)?/(kernel|bias)", path) else ""
            yield torch_weight(path, module, shape, role=role)

    def _module(self, path, branches):
        """The layer that a weight is of, or whose norm it is of."""
        first, *place, _ = path.split("/")
        if first == "stem":
            return self.stem(int(place[0][-1])), place[0].startswith("norm")
        if first.startswith("head"):
            return first, place == ["norm"]
        branch, part, layer = place
        return f"{branches[f'{first}/{branch}']}.{self.parts[part]}", layer == "norm"

    def tidy(self, arrays: Arrays) -> Arrays:
        """Spells what was folded as a layer with a norm that does nothing but add the bias."""
        found = {}
        for key, array in arrays.items():
            module, _, end = key.rpartition(".")
            beside_a_norm = module.rpartition(".")[2] in (self.linear, self.head_linear, "bn")
            if end not in ("weight", "bias") or beside_a_norm:
                found[key] = _as_matrix(array)
            elif module in ("head", "head_dist"):
                found[f"{module}.{self.head_linear}.{end}"] = array
                if end == "weight":
                    found |= _idle_norm(f"{module}.bn", array.shape[1])
            elif end == "weight":
                found[f"{module}.{self.linear}.weight"] = _as_matrix(array)
            else:
                found |= _idle_norm(f"{module}.bn", array.shape[0]) | {f"{module}.bn.bias": array}
        return found


def _as_matrix(array):
    """Makes a matrix of a kernel of 1 x 1 pixel, as timm's `levit_conv` variants have them."""
    if array.shape[2:] != (1, 1):
        return array
    return StoredArray(array.shape[:2], array.dtype, lambda: array.read()[:, :, 0, 0])


def _idle_norm(key, width):
    """A batch norm that changes nothing."""
    values = {
        "weight": np.sqrt(1 + _BATCH_NORM_EPSILON),
        "bias": 0.0,
        "running_mean": 0.0,
        "running_var": 1.0,
    }
    return {
        f"{key}.{end}": StoredArray(
            (width,),
            np.dtype(np.float32),
            lambda value=value: np.full(width, value, np.float32),
        )
        for end, value in values.items()
    }


_ORIGINAL = Spelling(
    stem=lambda number: f"patch_embed.{2 * number}",  # activations have numbers too
    attention=lambda stage, layer, count: f"blocks.{count}.m",
    mlp=lambda stage, layer, count: f"blocks.{count}.m",
    down_attention=lambda stage, count: f"blocks.{count}",
    down_mlp=lambda stage, count: f"blocks.{count}.m",
    parts={
        "qkv": "qkv",
        "query": "q.1",
        "key_value": "kv",
        "out": "proj.1",
        "dense_in": "0",
        "dense_out": "2",
    },
    linear="c",
    head_linear="l",
)
_TIMM = Spelling(
    stem=lambda number: f"stem.conv{number + 1}",
    attention=lambda stage, layer, count: f"stages.{stage}.blocks.{layer}.attn",
    mlp=lambda stage, layer, count: f"stages.{stage}.blocks.{layer}.mlp",
    down_attention=lambda stage, count: f"stages.{stage + 1}.downsample.attn_downsample",
    down_mlp=lambda stage, count: f"stages.{stage + 1}.downsample.mlp",
    parts={
        "qkv": "qkv",
        "query": "q.ln",
        "key_value": "kv",
        "out": "proj.ln",
        "dense_in": "ln1",
        "dense_out": "ln2",
    },
    linear="linear",
    head_linear="linear",
)


def _extras(model):
    """What the reference's files hold beside weights: counters, and the indices of the biases."""
    indices = {}
    for stage in model.stages:
        for layer in stage._flatten_layers():
            if isinstance(layer, OffsetAttention):
                path = f"{stage.name}/{layer.name}"
                stride = getattr(layer, "stride", 1)
                key = f"{_ORIGINAL.branches(model)[path]}.{_INDICES}"
                indices[key] = offset_indices(layer.grid_size, stride).astype(np.int64)
    return indices | batch_counters(_ORIGINAL.tensors(model))


LEVIT = Naming(
    "levit",
    covers=("LeViT",),
    marker=lambda keys, root: f"blocks.0.m.{BIASES}" in keys,
    tensors=_ORIGINAL.tensors,
    position_method="corner_aligned",
    configure=lambda arrays: configure(arrays, _ORIGINAL),
    heads=("head.", "head_dist."),
    expects={"activation": "hard_swish"},
    tidy=_ORIGINAL.tidy,
    extras=_extras,
    ignored=lambda key: is_counter(key) or key.endswith(_INDICES),
    extension=".pth",
    prefix="model/",
)
TIMM_LEVIT = dataclasses.replace(
    LEVIT,
    name="timm_levit",
    marker=lambda keys, root: f"stages.0.blocks.0.attn.{BIASES}" in keys,
    tensors=_TIMM.tensors,
    configure=lambda arrays: configure(arrays, _TIMM),
    expects={},
    tidy=_TIMM.tidy,
    extras=lambda model: batch_counters(_TIMM.tensors(model)),
    extension=".safetensors",
    prefix="",
)
