"""Names of CvT: those of microsoft/CvT (`cls_cvt.py`) and Hugging Face's (`modeling_cvt.py`).

Hugging Face's model computes with the exact GELU, though its public files are the reference's own
weights, which were trained with x * sigmoid(1.702 x). The outputs here are those of the reference.
"""

import dataclasses
import re
from collections.abc import Iterator

import keras

from vit_tf.checkpoints.names.naming import (
    Arrays,
    Naming,
    Tensor,
    batch_counters,
    count_blocks,
    is_counter,
    torch_weight,
)
from vit_tf.checkpoints.names.own import weights_by_path


def _projections():
    """Modules of the convolutional projections; see `_MODULES`."""
    modules = {}
    for part in ("query", "key", "value"):
        theirs = f"attn.conv_proj_{part[0]}"
        face = f"attention.attention.convolution_projection_{part}.convolution_projection"
        modules[f"attention/{part}_conv"] = (f"{theirs}.conv", f"{face}.convolution")
        modules[f"attention/{part}_norm"] = (f"{theirs}.bn", f"{face}.normalization")
        modules[f"attention/{part}"] = (
            f"attn.proj_{part[0]}",
            f"attention.attention.projection_{part}",
        )
    return modules


# Our layer, within a block, a stage or the model -> the reference's and Hugging Face's module.
_MODULES = {
    "embedding/projection": ("patch_embed.proj", "embedding.convolution_embeddings.projection"),
    "embedding/norm": ("patch_embed.norm", "embedding.convolution_embeddings.normalization"),
    "attention_norm": ("norm1", "layernorm_before"),
    **_projections(),
    "attention/out": ("attn.proj", "attention.output.dense"),
    "mlp_norm": ("norm2", "layernorm_after"),
    "mlp/dense_in": ("mlp.fc1", "intermediate.dense"),
    "mlp/dense_out": ("mlp.fc2", "output.dense"),
    "encoder_norm": ("norm", "layernorm"),
    "head": ("head", "classifier"),
}
_REFERENCE, _HUGGING_FACE = 0, 1
# What stands before the modules of a stage, and those of a block within it.
_PLACES = (("stage{}.", "blocks.{}."), ("cvt.encoder.stages.{}.", "layers.{}."))


def _tensors(model: keras.Model, whose: int) -> Iterator[Tensor]:
    """Names every weight of a CvT."""
    of_stage, of_block = _PLACES[whose]
    for path, weight in weights_by_path(model).items():
        stage, block, layer = re.match(r"(?:stage(\d+)/)?(?:block(\d+)/)?(.*)/", path).groups()
        place = of_stage.format(stage) if stage else ""
        place += of_block.format(int(block)) if block else ""
        if layer == "class_token":
            yield Tensor(path, (f"{place}cls_token",), tuple(weight.shape))
        else:
            module = place + _MODULES[layer][whose]
            role = "head" if layer == "head" else ""
            yield torch_weight(path, module, tuple(weight.shape), layer.endswith("_conv"), role)


def _configure(arrays: Arrays, whose: int) -> dict:
    """Infers a configuration; torch stores neither the number of heads, nor strides."""
    of_stage, of_block = _PLACES[whose]

    def shape(stage, layer, end="weight", block=None):
        place = of_stage.format(stage) + ("" if block is None else of_block.format(block))
        return arrays[f"{place}{_MODULES[layer][whose]}.{end}"].shape

    stages = range(count_blocks(arrays, of_stage.partition("{")[0], "."))
    kernels = [shape(stage, "embedding/projection") for stage in stages]
    blocks = of_block.partition("{")[0]
    head = f"{_MODULES['head'][whose]}.bias"
    config = {
        "family": "cvt",
        "width": tuple(kernel[0] for kernel in kernels),
        "depth": tuple(count_blocks(arrays, of_stage.format(s) + blocks, ".") for s in stages),
        "num_classes": arrays[head].shape[0] if head in arrays else 0,
    }
    token = f"{of_stage.format(stages[-1])}cls_token"
    told = {
        "mlp_dim": tuple(shape(stage, "mlp/dense_in", "bias", 0)[0] for stage in stages),
        "patch_size": tuple(kernel[-1] for kernel in kernels),
        "projection_kernel": tuple(shape(s, "attention/key_conv", block=0)[-1] for s in stages),
        "pool": "token" if token in arrays else "gap",
        "channels": kernels[0][1],
    }
    usual = {
        "mlp_dim": tuple(4 * width for width in config["width"]),
        "patch_size": (7, *[3] * (len(stages) - 1)),
        "projection_kernel": (3,) * len(stages),
        "pool": "token",
        "channels": 3,
    }
    return config | {key: value for key, value in told.items() if value != usual[key]}


def _with_prefix(arrays: Arrays) -> Arrays:
    """Gives the keys of a bare backbone of Hugging Face's their prefix."""
    return {re.sub(r"^encoder\.", "cvt.encoder.", key): array for key, array in arrays.items()}


CVT = Naming(
    "cvt",
    covers=("CvT",),
    marker=lambda keys, root: "stage0.blocks.0.attn.conv_proj_q.conv.weight" in keys,
    tensors=lambda model: _tensors(model, _REFERENCE),
    position_method="bicubic",
    configure=lambda arrays: _configure(arrays, _REFERENCE),
    heads=("head.",),
    expects={"activation": "quick_gelu", "norm_epsilon": 1e-5},
    ignored=is_counter,
    extension=".pth",
    extras=lambda model: batch_counters(_tensors(model, _REFERENCE)),
)
HUGGING_FACE_CVT = dataclasses.replace(
    CVT,
    name="hugging_face_cvt",
    marker=lambda keys, root: any(
        re.match(r"(cvt\.)?encoder\.stages\.0\.embedding\.convolution_embeddings\.", key)
        for key in keys
    ),
    tensors=lambda model: _tensors(model, _HUGGING_FACE),
    configure=lambda arrays: _configure(arrays, _HUGGING_FACE),
    heads=("classifier.",),
    tidy=_with_prefix,
    extension=".safetensors",
    extras=lambda model: batch_counters(_tensors(model, _HUGGING_FACE)),
)
