"""Names in the files of SHI-Labs/Compact-Transformers: CCT, CVT and ViT-Lite."""

from collections.abc import Iterator

import keras

from vit_tf.checkpoints.names.naming import (
    Arrays,
    Naming,
    Tensor,
    count_blocks,
    square_side,
    torch_conv,
    torch_linear,
    torch_norm,
)
from vit_tf.checkpoints.names.own import patch_kernel_shape
from vit_tf.layers import tokenizer_stride

_FIRST_CONVOLUTION = "tokenizer.conv_layers.0.0"
_POSITIONS = "classifier.positional_emb"
_CLASS_TOKEN = "classifier.class_emb"


def tensors(model: keras.Model) -> Iterator[Tensor]:
    """Names every weight of a CCT, CVT or ViT-Lite."""
    width = model.width
    yield from _stem(model)
    if model.class_token is not None:
        yield Tensor("class_token/token", (_CLASS_TOKEN,), (1, 1, width))
    if model.positions is not None:
        yield Tensor("positions/table", (_POSITIONS,), (1, -1, width), role="positions")
    for index in range(model.depth):
        yield from _block(f"block{index:02d}", f"classifier.blocks.{index}", width, model.mlp_dim)
    yield from torch_norm("encoder_norm", "classifier.norm", width)
    if model.sequence_pooling is not None:
        yield from torch_linear("sequence_pooling/score", "classifier.attention_pool", width, 1)
    if model.head is not None:
        yield from torch_linear("head", "classifier.fc", width, model.num_classes, "head")


def _stem(model):
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        shape = patch_kernel_shape(model)
        weight = "patch_embedding/projection"
        yield from torch_conv(weight, _FIRST_CONVOLUTION, shape, True, "patch_kernel")
        return
    channels, side = model.channels, tokenizer.kernel_size
    for index, width in enumerate(tokenizer.widths):
        weight, key = f"tokenizer/conv{index}", f"tokenizer.conv_layers.{index}.0"
        yield from torch_conv(weight, key, (side, side, channels, width), False)
        channels = width


def _block(weight, key, width, mlp_dim):
    yield from torch_norm(f"{weight}/attention_norm", f"{key}.pre_norm", width)
    qkv, qkv_key = f"{weight}/attention/qkv/kernel", f"{key}.self_attn.qkv.weight"
    yield Tensor(qkv, (qkv_key,), (3 * width, width), "linear")
    yield from torch_linear(f"{weight}/attention/out", f"{key}.self_attn.proj", width, width)
    yield from torch_norm(f"{weight}/mlp_norm", f"{key}.norm1", width)
    yield from torch_linear(f"{weight}/mlp/dense_in", f"{key}.linear1", width, mlp_dim)
    yield from torch_linear(f"{weight}/mlp/dense_out", f"{key}.linear2", mlp_dim, width)


def configure(arrays: Arrays) -> dict:
    """Infers a configuration.

    Files do not tell the number of heads, nor a tokenizer's stride and padding, which are taken to
    be the usual ones, nor whether a table of positions was learned.
    """
    config = {
        "width": arrays["classifier.norm.bias"].shape[0],
        "depth": count_blocks(arrays, "classifier.blocks.", "."),
        "mlp_dim": arrays["classifier.blocks.0.linear1.bias"].shape[0],
        "num_classes": arrays["classifier.fc.bias"].shape[0]
        if "classifier.fc.bias" in arrays
        else 0,
    }
    _, channels, height, width = arrays[f"{_FIRST_CONVOLUTION}.weight"].shape
    if f"{_FIRST_CONVOLUTION}.bias" in arrays:
        config["family"] = "vit_lite" if _CLASS_TOKEN in arrays else "compact_vit"
        config["patch_size"] = stride = height if height == width else (height, width)
    else:
        layers = count_blocks(arrays, "tokenizer.conv_layers.", ".")
        stride = tokenizer_stride(layers, height)
        config |= {"family": "cct", "tokenizer_layers": layers, "tokenizer_kernel_size": height}
        if layers > 1:
            config["tokenizer_width"] = arrays[f"{_FIRST_CONVOLUTION}.weight"].shape[0]
    if channels != 3:
        config["channels"] = channels
    return config | _positions(arrays, stride) | _pool(arrays, config["family"])


def _positions(arrays, stride):
    if _POSITIONS not in arrays:
        return {"position_embedding": "none"}
    side = square_side(arrays[_POSITIONS].shape[1] - (_CLASS_TOKEN in arrays))
    return {"image_size": side * stride} if side and isinstance(stride, int) else {}


def _pool(arrays, family):
    if _CLASS_TOKEN in arrays:
        return {} if family == "vit_lite" else {"pool": "token"}
    return {} if "classifier.attention_pool.weight" in arrays else {"pool": "gap"}


COMPACT_TRANSFORMERS = Naming(
    "compact_transformers",
    covers=("CompactTransformer", "CCT"),
    marker=lambda keys, root: "classifier.blocks.0.pre_norm.weight" in keys,
    tensors=tensors,
    position_method="bilinear",
    position_slots=lambda keys: int(_CLASS_TOKEN in keys),
    configure=configure,
    heads=("classifier.fc.",),
    expects={"activation": "gelu", "norm_epsilon": 1e-5},
    prefix_tokens=(_CLASS_TOKEN,),
    extension=".pth",
)
