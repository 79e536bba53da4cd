"""Namings: how a public format calls and lays out the weights of our models.

A naming is one table, read in both directions: `tensors(model)` says for every weight of a model
under which key, in which shape and layout a file of that format holds it.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from vit_tf.checkpoints.files.stored import StoredArray

Arrays = Mapping[str, StoredArray]

# Axes of a file's array in the order in which ours has them.
_AXES = {
    "plain": None,
    "linear": (1, 0),  # [out, in] -> [in, out]
    "conv": (2, 3, 1, 0),  # [out, in, height, width] -> [height, width, in, out]
    "depthwise": (2, 3, 0, 1),  # [channels, 1, height, width] -> [height, width, channels, 1]
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One weight of a model and where a file holds it.

    Args:
        weight: Path of the weight below the model, e.g. "block00/attention/qkv/kernel".
        keys: Names in the file. Several are parts of the weight, one behind the other on its last
            axis (query, key and value of a fused projection).
        shape: Shape of each part in the file.
        layout: "plain" (only reshaped), "linear", "conv" or "depthwise" (torch's order of axes).
        role: "positions", "patch_kernel", "grid" (ours is [rows, columns, ...], of any numbers of
            rows and columns), "grid_pairs" (ours is [heads, rows, columns, rows, columns] of two
            grids) or "head" for weights that loading can adapt.
    """

    weight: str
    keys: tuple[str, ...]
    shape: tuple[int, ...]
    layout: str = "plain"
    role: str = ""

    def file_to_model_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape, in our order of axes, of a file's array of this shape."""
        axes = _AXES[self.layout]
        return (
            tuple(shape)
            if axes is None or len(axes) != len(shape)
            else tuple(shape[axis] for axis in axes)
        )

    def to_model(self, parts: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
        """Makes the weight, of this shape, out of the file's parts."""
        part_shape = (*shape[:-1], shape[-1] // len(parts))
        axes = _AXES[self.layout]
        turned = [part if axes is None else np.transpose(part, axes) for part in parts]
        return np.concatenate([part.reshape(part_shape) for part in turned], axis=-1)

    def to_file(self, value: np.ndarray) -> dict[str, np.ndarray]:
        """Splits the weight into the file's parts: key -> array."""
        axes = _AXES[self.layout]
        arrays = {}
        for key, part in zip(self.keys, np.split(value, len(self.keys), axis=-1), strict=True):
            if axes is None:
                arrays[key] = part.reshape(self.shape)
            else:
                turned_shape = tuple(self.shape[axis] for axis in axes)
                arrays[key] = part.reshape(turned_shape).transpose(np.argsort(axes))
        return {key: np.ascontiguousarray(array) for key, array in arrays.items()}


@dataclasses.dataclass(frozen=True)
class Naming:
    """A public format's names.

    Args:
        name: How users call it, e.g. "vision_transformer".
        covers: Class names of the models whose weights it can name.
        marker: Tells whether keys are of this naming, given them below a root, and the root.
        tensors: Names every weight of a model.
        position_method: How this family resizes its position tables (`layers.resize_matrix`).
        heads: What the keys of heads start with.
        prefix_tokens: Keys of the tokens that stand before the patches, in the order of
            `own.PREFIX_TOKENS`.
        registers: Key of the register tokens, if a position table with rows for the tokens before
            the patches has rows for these too.
        expects: Settings of the models that this project computes with, by keyword.
        tidy: Brings older spellings of a file's keys to the current one, each key by itself.
        position_slots: Rows of the file's position table that belong to tokens before the patches,
            given the file's keys; None where the keys do not tell.
        configure: Infers `create_model`'s family and configuration from the arrays.
        ignored: Tells whether a key below the root holds no weight (counters and the like).
        extension: Of the files that are written; "" if none are.
        prefix: Stands before every key that is written.
        suits: Whether this is the usual naming for a model, among those of one extension.
        extras: What else such a file holds for a model (counters and the like).
    """

    name: str
    covers: tuple[str, ...]
    marker: Callable[[Collection[str], str], bool]
    tensors: Callable[[keras.Model], Iterator[Tensor]]
    position_method: str
    configure: Callable[[Arrays], dict]
    heads: tuple[str, ...] = ("head/",)
    prefix_tokens: tuple[str, ...] = ()
    registers: str = ""
    expects: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tidy: Callable[[Arrays], Arrays] = dict
    position_slots: Callable[[Collection[str]], int | None] = lambda keys: None
    ignored: Callable[[str], bool] = lambda key: False
    extension: str = ".npz"
    prefix: str = ""
    suits: Callable[[keras.Model], bool] = lambda model: True
    extras: Callable[[keras.Model], dict[str, np.ndarray]] = lambda model: {}


def flax_dense(
    weight: str,
    keys: str | tuple[str, ...],
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    role: str = "",
) -> Iterator[Tensor]:
    """A flax `Dense` or `DenseGeneral`: kernel [*inputs, *outputs] and bias [*outputs]."""
    keys = (keys,) if isinstance(keys, str) else keys
    kernels, biases = (tuple(f"{key}/{end}" for key in keys) for end in ("kernel", "bias"))
    yield Tensor(f"{weight}/kernel", kernels, (*inputs, *outputs), role=role)
    yield Tensor(f"{weight}/bias", biases, outputs, role=role)


def flax_norm(weight: str, key: str, width: int) -> Iterator[Tensor]:
    """A flax `LayerNorm` or `GroupNorm`."""
    yield Tensor(f"{weight}/gamma", (f"{key}/scale",), (width,))
    yield Tensor(f"{weight}/beta", (f"{key}/bias",), (width,))


def torch_linear(
    weight: str, keys: str | tuple[str, ...], inputs: int, outputs: int, role: str = ""
) -> Iterator[Tensor]:
    """A torch `Linear`: weight [outputs, inputs] and bias [outputs]."""
    keys = (keys,) if isinstance(keys, str) else keys
    weights, biases = (tuple(f"{key}.{end}" for key in keys) for end in ("weight", "bias"))
    yield Tensor(f"{weight}/kernel", weights, (outputs, inputs), "linear", role)
    yield Tensor(f"{weight}/bias", biases, (outputs,), role=role)


def torch_norm(weight: str, key: str, width: int) -> Iterator[Tensor]:
    """A torch `LayerNorm` or `GroupNorm`."""
    yield Tensor(f"{weight}/gamma", (f"{key}.weight",), (width,))
    yield Tensor(f"{weight}/beta", (f"{key}.bias",), (width,))


def torch_conv(
    weight: str, key: str, shape: tuple[int, int, int, int], bias: bool, role: str = ""
) -> Iterator[Tensor]:
    """A torch `Conv2d`; `shape` is our kernel's, [height, width, in, out]."""
    height, width, inputs, outputs = shape
    theirs = (outputs, inputs, height, width)
    yield Tensor(f"{weight}/kernel", (f"{key}.weight",), theirs, "conv", role)
    if bias:
        yield Tensor(f"{weight}/bias", (f"{key}.bias",), (outputs,))


def torch_weight(
    path: str, module: str, shape: tuple[int, ...], depthwise: bool = False, role: str = ""
) -> Tensor:
    """A weight of a torch module, told by the end of our path and by our shape.

    Args:
        path: Of our weight, e.g. "stem/norm0/moving_mean".
        module: The torch module's name, e.g. "stem.bn0".
        shape: Of our weight.
        depthwise: Whether a kernel is that of a depth-wise convolution.
        role: As that of `Tensor`.
    """
    end = path.rpartition("/")[2]
    layout = "plain"
    if end == "kernel":
        layout = "linear" if len(shape) == 2 else "depthwise" if depthwise else "conv"
        shape = tuple(shape[axis] for axis in np.argsort(_AXES[layout]))
    return Tensor(path, (f"{module}.{_TORCH_ENDS[end]}",), tuple(shape), layout, role)


_TORCH_ENDS = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def torch_batch_norm(weight: str, key: str, width: int) -> Iterator[Tensor]:
    """A torch `BatchNorm1d` or `BatchNorm2d`."""
    yield from torch_norm(weight, key, width)
    yield Tensor(f"{weight}/moving_mean", (f"{key}.running_mean",), (width,))
    yield Tensor(f"{weight}/moving_variance", (f"{key}.running_var",), (width,))


def is_counter(key: str) -> bool:
    """Whether a key is torch's count of the batches that a batch norm has seen."""
    return key.endswith(_COUNTER)


def batch_counters(tensors: Iterable[Tensor]) -> dict[str, np.ndarray]:
    """What torch keeps for each batch norm beside the weights; nothing depends on it."""
    keys = (key for tensor in tensors for key in tensor.keys)
    norms = (key.removesuffix(_MEAN) for key in keys if key.endswith(_MEAN))
    return {norm + _COUNTER: np.zeros((), np.int64) for norm in norms}


_MEAN, _COUNTER = "running_mean", "num_batches_tracked"


def torch_patch_embedding(key: str, shape: tuple[int, int, int, int]) -> Iterator[Tensor]:
    """The patch embedding as a torch `Conv2d`."""
    return torch_conv("patch_embedding/projection", key, shape, True, "patch_kernel")


def count_blocks(arrays: Arrays, prefix: str, separator: str) -> int:
    """Number of blocks whose keys start with `prefix` and a number, e.g. "blocks." and "."."""
    numbers = [key[len(prefix) :].split(separator)[0] for key in arrays if key.startswith(prefix)]
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)


def square_side(patches: int) -> int | None:
    """Side of a square grid of so many patches; None if it cannot be square."""
    side = math.isqrt(patches)
    return side if side * side == patches else None
