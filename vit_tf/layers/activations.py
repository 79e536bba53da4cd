"""Activation functions by name."""

import difflib
from collections.abc import Callable

import keras
from keras import ops


def _gelu_tanh(x):
    return ops.gelu(x, approximate=True)


def _gelu_erf(x):
    return ops.gelu(x, approximate=False)


def _quick_gelu(x):
    return x * ops.sigmoid(1.702 * x)


_ACTIVATIONS = {
    "gelu": _gelu_erf,
    "gelu_tanh": _gelu_tanh,
    "linear": keras.activations.linear,
    "quick_gelu": _quick_gelu,
    "relu": ops.relu,
    "silu": ops.silu,
    "tanh": ops.tanh,
}


def get_activation(name: str) -> Callable:
    """Returns the element-wise function called `name`.

    `"gelu"` is the exact erf form (torch's default, DeiT), `"gelu_tanh"` the tanh approximation
    (flax's default, so vision_transformer and big_vision), `"quick_gelu"` is x * sigmoid(1.702 x).

    Raises:
        ValueError: No activation is called `name`; the closest names are given.
    """
    if name not in _ACTIVATIONS:
        close = difflib.get_close_matches(str(name), _ACTIVATIONS, n=2, cutoff=0.4)
        hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ValueError(f"Unknown activation {name!r}.{hint} Known: {', '.join(_ACTIVATIONS)}.")
    return _ACTIVATIONS[name]
