"""Names in pycls' ViT files, both of ViT_C and of its patchify twin (facebookresearch/pycls)."""

from collections.abc import Iterator

import keras

from vit_tf.checkpoints.names.naming import (
    Arrays,
    Naming,
    Tensor,
    batch_counters,
    count_blocks,
    is_counter,
    square_side,
    torch_batch_norm,
    torch_conv,
    torch_linear,
    torch_norm,
    torch_patch_embedding,
)
from vit_tf.checkpoints.names.own import patch_kernel_shape


def tensors(model: keras.Model) -> Iterator[Tensor]:
    """Names every weight of a ViT_C, or of a ViT with a class token."""
    width = model.width
    stem_widths = getattr(model, "stem_widths", None)
    if stem_widths is None:
        yield from torch_patch_embedding("stem.patchify", patch_kernel_shape(model))
    else:
        yield from _stem(model.channels, stem_widths, width)
    if model.class_token is not None:
        yield Tensor("class_token/token", ("class_token",), (1, 1, width))
    if model.position_embedding == "learned":
        yield Tensor("positions/table", ("pos_embedding",), (-1, 1, width), role="positions")
    for index in range(model.depth):
        yield from _block(f"block{index:02d}", f"encoder.block_{index}", width, model.mlp_dim)
    yield from torch_norm("encoder_norm", "encoder.ln", width)
    if model.head is not None:
        yield from torch_linear("head", "head.head_fc", width, model.num_classes, "head")


def _stem(channels, stem_widths, width):
    for index, outputs in enumerate(stem_widths):
        key = f"stem.cstem{index}"
        kernel = (3, 3, channels, outputs)
        yield from torch_conv(f"stem/conv{index}", f"{key}_conv", kernel, bias=False)
        yield from torch_batch_norm(f"stem/norm{index}", f"{key}_bn", outputs)
        channels = outputs
    yield from torch_conv("stem/out", "stem.cstem_last_conv", (1, 1, channels, width), bias=True)


def _block(weight, key, width, mlp_dim):
    yield from torch_norm(f"{weight}/attention_norm", f"{key}.ln_1", width)
    attention = f"{key}.self_attention.block"
    fused = f"{weight}/attention/qkv"
    yield Tensor(f"{fused}/kernel", (f"{attention}.in_proj_weight",), (3 * width, width), "linear")
    yield Tensor(f"{fused}/bias", (f"{attention}.in_proj_bias",), (3 * width,))
    yield from torch_linear(f"{weight}/attention/out", f"{attention}.out_proj", width, width)
    yield from torch_norm(f"{weight}/mlp_norm", f"{key}.ln_2", width)
    mlp = f"{key}.mlp_block"
    yield from torch_linear(f"{weight}/mlp/dense_in", f"{mlp}.linear_1", width, mlp_dim)
    yield from torch_linear(f"{weight}/mlp/dense_out", f"{mlp}.linear_2", mlp_dim, width)


def configure(arrays: Arrays) -> dict:
    """Infers a configuration; torch does not store the number of heads, nor strides."""
    width = arrays["encoder.ln.bias"].shape[0]
    config = {
        "family": "vit_c",
        "width": width,
        "depth": count_blocks(arrays, "encoder.block_", "."),
        "mlp_dim": arrays["encoder.block_0.mlp_block.linear_1.bias"].shape[0],
        "num_classes": arrays["head.head_fc.bias"].shape[0] if "head.head_fc.bias" in arrays else 0,
    }
    stride = 16
    if "stem.patchify.weight" in arrays:
        stride = config["patch_size"] = arrays["stem.patchify.weight"].shape[2]
    else:
        widths = []
        while f"stem.cstem{len(widths)}_conv.weight" in arrays:
            widths.append(arrays[f"stem.cstem{len(widths)}_conv.weight"].shape[0])
        config["stem_widths"] = tuple(widths)
    side = square_side(arrays["pos_embedding"].shape[0] - 1)
    return config | ({"image_size": side * stride} if side else {})


PYCLS = Naming(
    "pycls",
    covers=("ViTC", "ViT"),
    marker=lambda keys, root: (
        "encoder.block_0.ln_1.weight" in keys
        and ("stem.patchify.weight" in keys or "stem.cstem0_conv.weight" in keys)
    ),
    tensors=tensors,
    position_method="bicubic",
    position_slots=lambda keys: int("class_token" in keys),
    configure=configure,
    heads=("head.",),
    expects={"activation": "gelu", "norm_epsilon": 1e-5},
    prefix_tokens=("class_token",),
    extras=lambda model: batch_counters(tensors(model)),
    suits=lambda model: type(model).__name__ == "ViTC",
    ignored=is_counter,
    extension=".pth",
    prefix="model_state/",
)
