"""Names in the `.pth` files of CMT (ggjy/CMT.pytorch, `cmt.py`)."""

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
    square_side,
    torch_weight,
)
from vit_tf.checkpoints.names.own import weights_by_path

_LETTERS = "abcdefghijklmnopqrstuvwxyz"  # of the stages
# Our layer within a block -> theirs.
_BLOCK = {
    "local_perception": "proj",
    "attention_norm": "norm1",
    "attention/query": "attn.q",
    "attention/key": "attn.k",
    "attention/value": "attn.v",
    "attention/reduce": "attn.sr.0",
    "attention/reduce_norm": "attn.sr.1",
    "attention/out": "attn.proj",
    "mlp_norm": "norm2",
    "mlp/conv_in": "mlp.conv1.0",
    "mlp/norm_in": "mlp.conv1.2",
    "mlp/depthwise": "mlp.proj",
    "mlp/depthwise_norm": "mlp.proj_bn",
    "mlp/conv_out": "mlp.conv2.0",
    "mlp/norm_out": "mlp.conv2.1",
}
_MODEL = {"final_conv": "_fc", "final_norm": "_bn", "head": "head"}
_EMBEDDING = {"embedding/projection": "proj", "embedding/norm": "norm"}
_DEPTHWISE = ("local_perception", "attention/reduce", "mlp/depthwise")


def tensors(model: keras.Model) -> Iterator[Tensor]:
    """Names every weight of a CMT."""
    for path, weight in weights_by_path(model).items():
        shape = tuple(weight.shape)
        stage, block, layer = re.match(r"(?:stage(\d+)/)?(?:block(\d+)/)?(.*)/", path).groups()
        letter = _LETTERS[int(stage)] if stage else ""
        if layer == "positions":
            pairs = (shape[0], shape[1] * shape[2], shape[3] * shape[4])
            yield Tensor(path, (f"relative_pos_{letter}",), pairs, role="grid_pairs")
            continue
        if block:
            module = f"blocks_{letter}.{int(block)}.{_BLOCK[layer]}"
        elif stage:
            module = f"patch_embed_{letter}.{_EMBEDDING[layer]}"
        else:
            module = _MODEL.get(layer) or layer.replace("/", "_")  # stem_conv1, stem_norm1, ...
        role = "head" if layer == "head" else ""
        yield torch_weight(path, module, shape, layer in _DEPTHWISE, role)


def configure(arrays: Arrays) -> dict:
    """Infers a configuration; torch does not store strides. The image is taken to be square."""
    letters = [letter for letter in _LETTERS if f"patch_embed_{letter}.proj.weight" in arrays]

    def shapes(key):
        return tuple(arrays[key.format(letter)].shape for letter in letters)

    def first(key):
        return tuple(shape[0] for shape in shapes(key))

    positions = shapes("relative_pos_{}")
    config = {
        "family": "cmt",
        "width": first("patch_embed_{}.proj.bias"),
        "depth": tuple(count_blocks(arrays, f"blocks_{letter}.", ".") for letter in letters),
        "num_heads": tuple(heads for heads, _, _ in positions),
        "mlp_dim": first("blocks_{}.0.mlp.conv1.0.bias"),
        "stem_width": arrays["stem_conv1.bias"].shape[0],
        "representation_size": arrays["_fc.bias"].shape[0],
        "num_classes": arrays["head.bias"].shape[0] if "head.bias" in arrays else 0,
    }
    kernels = (arrays.get(f"blocks_{letter}.0.attn.sr.0.weight") for letter in letters)
    config["key_value_reduction"] = tuple(1 if k is None else k.shape[-1] for k in kernels)
    if arrays["stem_conv1.weight"].shape[1] != 3:
        config["channels"] = arrays["stem_conv1.weight"].shape[1]
    side = square_side(positions[-1][1])
    stride = 2 ** (len(letters) + 1)  # of the stem and the stages
    return config | ({"image_size": side * stride} if side else {})


CMT = Naming(
    "cmt",
    covers=("CMT",),
    marker=lambda keys, root: {"relative_pos_a", "stem_conv1.weight", "_fc.weight"} <= set(keys),
    tensors=tensors,
    position_method="bicubic",
    configure=configure,
    heads=("head.",),
    expects={"activation": "gelu", "norm_epsilon": 1e-6},
    ignored=is_counter,
    extension=".pth",
    prefix="model/",
    extras=lambda model: batch_counters(tensors(model)),
)
