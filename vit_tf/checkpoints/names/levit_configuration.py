"""What the arrays of a LeViT file tell of its model."""

import dataclasses
import itertools
from typing import Any

from vit_tf.checkpoints.names.naming import Arrays, square_side
from vit_tf.layers.offset_attention import BIASES


def configure(arrays: Arrays, spelling: Any) -> dict:
    """Infers a configuration; the image is taken to be square.

    Args:
        arrays: Those of the file, after `tidy`.
        spelling: The `names.levit.Spelling` that they follow.
    """
    stages, steps = _walk(arrays, spelling)
    stem = _stem(arrays, spelling)
    head = f"head.{spelling.head_linear}.bias"
    first, width = stages[0][0], tuple(layers[0].width for layers in stages)
    key_dim = (first.fused // first.num_heads - first.value_dim) // 2
    sides = [square_side(layers[0].offsets) for layers in stages]
    config = {
        "family": "levit",
        "width": width,
        "depth": tuple(len(layers) for layers in stages),
        "num_heads": tuple(layers[0].num_heads for layers in stages),
        "key_dim": key_dim,
        "num_classes": arrays[head].shape[0] if head in arrays else 0,
    }
    told = {
        "stem_widths": tuple(kernel[0] for kernel in stem),
        "value_dim": first.value_dim,
        "mlp_ratio": first.mlp_ratio,
        "distillation_head": f"head_dist.{spelling.head_linear}.bias" in arrays,
        "channels": stem[0][1],
    }
    usual = {
        "stem_widths": tuple(width[0] // 2**power for power in (3, 2, 1, 0)),
        "value_dim": 2 * key_dim,
        "mlp_ratio": 2,
        "distillation_head": config["num_classes"] > 0,  # a file without heads does not tell
        "channels": 3,
    }
    if steps:
        told["down_num_heads"] = tuple(step.num_heads for step in steps)
        usual["down_num_heads"] = tuple(before // key_dim for before in width[:-1])
        told |= {"down_value_dim": steps[0].value_dim, "down_mlp_ratio": steps[0].mlp_ratio}
        usual |= {"down_value_dim": 4 * key_dim, "down_mlp_ratio": 2}
    if all(sides):
        config["image_size"] = sides[0] * 2 ** len(stem)
        told["down_stride"], usual["down_stride"] = _stride(sides), 2
    return config | {key: value for key, value in told.items() if value != usual[key]}


@dataclasses.dataclass(frozen=True)
class _Attention:
    """An attention layer and the MLP behind it.

    Args:
        width: Size of the output vectors.
        num_heads: Attention heads.
        value_dim: Size of a head's value.
        fused: Outputs of query, key and value together; 0 for a sub-sampling layer.
        offsets: Biases of a head.
        mlp_ratio: Hidden size of the MLP as a multiple of the width; 0 without an MLP.
    """

    width: int
    num_heads: int
    value_dim: int
    fused: int
    offsets: int
    mlp_ratio: float

    @property
    def branches(self) -> int:
        """How many numbers the two take."""
        return 1 + bool(self.mlp_ratio)


def _walk(arrays, spelling):
    """The attention layers of each stage, and those between stages."""
    stages, steps, count = [], [], 0
    while True:
        stage, layers = len(stages), []
        while layer := _read(
            arrays,
            spelling,
            spelling.attention(stage, len(layers), count),
            spelling.mlp(stage, len(layers), count + 1),
        ):
            layers.append(layer)
            count += layer.branches
        stages.append(layers)
        names = spelling.down_attention(stage, count), spelling.down_mlp(stage, count + 1)
        step = _read(arrays, spelling, *names)
        if step is None:
            return stages, steps
        steps.append(step)
        count += step.branches


def _read(arrays, spelling, attention, mlp):
    """The layer of these names, None if there is none."""
    if f"{attention}.{BIASES}" not in arrays:
        return None

    def shape(module, part):
        key = f"{module}.{spelling.parts[part]}.{spelling.linear}.weight"
        return arrays[key].shape if key in arrays else (0, 0)

    num_heads, offsets = arrays[f"{attention}.{BIASES}"].shape
    width, values = shape(attention, "out")
    ratio = shape(mlp, "dense_in")[0] / width
    return _Attention(
        width,
        num_heads,
        values // num_heads,
        shape(attention, "qkv")[0],
        offsets,
        int(ratio) if ratio == int(ratio) else ratio,
    )


def _stem(arrays, spelling):
    """Shapes of the stem's kernels, in torch's order of axes."""
    keys = (f"{spelling.stem(n)}.{spelling.linear}.weight" for n in itertools.count())
    return [arrays[key].shape for key in itertools.takewhile(arrays.__contains__, keys)]


def _stride(sides):
    """By what the sides of the grids are divided from stage to stage, 2 where that may be."""
    for stride in range(2, sides[0] + 1):
        if all(-(-side // stride) == new for side, new in itertools.pairwise(sides)):
            return stride
    return 1 if sides[-1] == sides[0] and sides[0] > 1 else 2
