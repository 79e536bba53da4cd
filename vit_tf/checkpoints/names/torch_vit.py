"""Names of a ViT in torch: DeiT's `.pth` files and timm's, which differ only in LayerScale.

(facebookresearch/deit, `models.py` and `models_v2.py`; huggingface/pytorch-image-models,
`vision_transformer.py`.)
"""

import dataclasses
import re
from collections.abc import Collection, Iterator

import keras

from vit_tf.checkpoints.names.naming import (
    Arrays,
    Naming,
    Tensor,
    count_blocks,
    square_side,
    torch_linear,
    torch_norm,
    torch_patch_embedding,
)
from vit_tf.checkpoints.names.own import patch_kernel_shape


def tidy(arrays: Arrays) -> Arrays:
    """Brings DeiT's names of LayerScale and timm's older ones to those of timm today."""
    found = {}
    for key, array in arrays.items():
        key = re.sub(r"^(blocks\.\d+)\.gamma_([12])$", r"\1.ls\2.gamma", key)
        found[re.sub(r"^pre_logits\.fc\.", "pre_logits.", key)] = array
    return found


def tensors(model: keras.Model, scale: str = "ls{}.gamma") -> Iterator[Tensor]:
    """Names every weight of a ViT or a distilled one; `scale` is the pattern of LayerScale."""
    width = model.width
    yield from torch_patch_embedding("patch_embed.proj", patch_kernel_shape(model))
    if model.class_token is not None:
        yield Tensor("class_token/token", ("cls_token",), (1, 1, width))
    if "head_dist" in model.heads:
        yield Tensor("distillation_token/token", ("dist_token",), (1, 1, width))
    if model.num_registers:
        registers = (1, model.num_registers, width)
        yield Tensor("registers/registers", ("reg_token",), registers)
    if model.position_embedding == "learned":
        yield Tensor("positions/table", ("pos_embed",), (1, -1, width), role="positions")
    for index in range(model.depth):
        yield from _block(f"block{index:02d}", f"blocks.{index}", model, scale)
    yield from torch_norm("encoder_norm", "norm", width)
    if model.map_head is not None:
        yield Tensor("map_head/probe", ("attn_pool.latent",), (1, 1, width))
        yield from torch_linear("map_head/query", "attn_pool.q", width, width)
        yield from torch_linear("map_head/key_value", "attn_pool.kv", width, 2 * width)
        yield from torch_linear("map_head/out", "attn_pool.proj", width, width)
        yield from torch_norm("map_head/norm", "attn_pool.norm", width)
        yield from torch_linear("map_head/mlp/dense_in", "attn_pool.mlp.fc1", width, model.mlp_dim)
        yield from torch_linear("map_head/mlp/dense_out", "attn_pool.mlp.fc2", model.mlp_dim, width)
    if model.pre_logits is not None:
        yield from torch_linear("pre_logits", "pre_logits", width, model.representation_size)
    for head, features in model.heads.items():
        if model.num_classes:
            yield from torch_linear(head, head, features, model.num_classes, "head")


def _block(weight, key, model, scale):
    width, mlp_dim = model.width, model.mlp_dim
    yield from torch_norm(f"{weight}/attention_norm", f"{key}.norm1", width)
    yield from torch_linear(f"{weight}/attention/qkv", f"{key}.attn.qkv", width, 3 * width)
    yield from torch_linear(f"{weight}/attention/out", f"{key}.attn.proj", width, width)
    yield from torch_norm(f"{weight}/mlp_norm", f"{key}.norm2", width)
    yield from torch_linear(f"{weight}/mlp/dense_in", f"{key}.mlp.fc1", width, mlp_dim)
    yield from torch_linear(f"{weight}/mlp/dense_out", f"{key}.mlp.fc2", mlp_dim, width)
    if model.layer_scale_init is not None:
        for number, part in enumerate(("attention_scale", "mlp_scale"), 1):
            yield Tensor(f"{weight}/{part}/gamma", (f"{key}.{scale.format(number)}",), (width,))


def configure(arrays: Arrays) -> dict:
    """Infers a configuration; torch does not store the number of heads, nor the activation."""
    out, channels, height, width = arrays["patch_embed.proj.weight"].shape
    prefix = sum(name in arrays for name in ("cls_token", "dist_token"))
    config = {
        "family": "deit_distilled" if "dist_token" in arrays else "deit",
        "patch_size": height if height == width else (height, width),
        "width": out,
        "depth": count_blocks(arrays, "blocks.", "."),
        "mlp_dim": arrays["blocks.0.mlp.fc1.bias"].shape[0],
        "num_classes": arrays["head.bias"].shape[0] if "head.bias" in arrays else 0,
    }
    if channels != 3:
        config["channels"] = channels
    if "dist_token" not in arrays and "cls_token" not in arrays:
        config["pool"] = "map" if "attn_pool.latent" in arrays else "gap"
    if "reg_token" in arrays:
        config["num_registers"] = arrays["reg_token"].shape[1]
    if "pre_logits.bias" in arrays:
        config["representation_size"] = arrays["pre_logits.bias"].shape[0]
    if "blocks.0.ls1.gamma" in arrays:
        config["family"] = "deit3"
    if "pos_embed" in arrays:
        rows = arrays["pos_embed"].shape[1]
        slots = next((n for n in dict.fromkeys((prefix, 0)) if square_side(rows - n)), None)
        if slots is not None:
            config["image_size"] = square_side(rows - slots) * height
            if prefix and (slots > 0) != (config["family"] != "deit3"):
                config["position_includes_class_token"] = slots > 0
    return config


def is_vit(keys: Collection[str]) -> bool:
    """Tells whether keys are those of a ViT or hybrid."""
    return "patch_embed.proj.weight" in keys and "blocks.0.attn.qkv.weight" in keys


def has_backbone(keys: Collection[str]) -> bool:
    """Tells whether the patches are cut out of a backbone's feature map."""
    return any(key.startswith("patch_embed.backbone.") for key in keys)


def _is_plain(keys):
    # DynamicViT's files have names of their own beside these.
    has_predictors = any(key.startswith("score_predictor.") for key in keys)
    return is_vit(keys) and not has_backbone(keys) and not has_predictors


TIMM = Naming(
    "timm",
    covers=("ViT", "DistilledViT", "FlexiViT", "DynamicViT"),
    marker=lambda keys, root: _is_plain(keys) and "model" not in root,
    tensors=tensors,
    position_method="bicubic_antialias",
    configure=configure,
    heads=("head.", "head_dist."),
    expects={"activation": "gelu"},
    prefix_tokens=("cls_token", "dist_token"),
    registers="reg_token",
    tidy=tidy,
    extension=".safetensors",
)


def _deit_names(arrays: Arrays) -> Arrays:
    return {re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", key): a for key, a in tidy(arrays).items()}


DEIT = dataclasses.replace(
    TIMM,
    name="deit",
    marker=lambda keys, root: _is_plain(keys) and "model" in root,
    tensors=lambda model: tensors(model, "gamma_{}"),
    position_method="bicubic",
    configure=lambda arrays: configure(tidy(arrays)),
    tidy=_deit_names,
    extension=".pth",
    prefix="model/",
)
