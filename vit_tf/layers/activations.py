"""Activation functions by name."""

import math
from collections.abc import Callable

import keras
from keras import ops

from vit_tf.layers.kernels import kernels_for
from vit_tf.suggestions import did_you_mean

_SQRT_HALF = math.sqrt(0.5)
_SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)


# Both forms of GELU are written so that TensorFlow's graph optimizer recognises them behind a dense
# layer and runs matrix product, bias and activation as one operation on CPUs (in the tanh form,
# which factor the 0.044715 stands by decides). Through Keras' own `gelu` it finds neither.


def _gelu_tanh(x):
    kernels = kernels_for(x)
    if kernels is not None:
        return kernels.gelu_tanh(x)
    inner = x + (0.044715 * ops.square(x)) * x
    return 0.5 * x * (1.0 + ops.tanh(_SQRT_2_OVER_PI * inner))


def _gelu_erf(x):
    kernels = kernels_for(x)
    if kernels is not None:
        return kernels.gelu(x)
    return 0.5 * x * (1.0 + ops.erf(x * _SQRT_HALF))


def _quick_gelu(x):
    return x * ops.sigmoid(1.702 * x)


def _hard_swish(x):
    # In this order LiteRT's converter recognises its operation of that name.
    return x * ops.relu6(x + 3.0) * (1.0 / 6.0)


_ACTIVATIONS = {
    "gelu": _gelu_erf,
    "gelu_tanh": _gelu_tanh,
    "hard_swish": _hard_swish,
    "linear": keras.activations.linear,
    "quick_gelu": _quick_gelu,
    "relu": ops.relu,
    "silu": ops.silu,
    "tanh": ops.tanh,
}


def get_activation(name: str) -> Callable:
    """Returns the element-wise function called `name`.

    `"gelu"` is the exact erf form (torch's default, DeiT), `"gelu_tanh"` the tanh approximation
    (flax's default, so vision_transformer and big_vision), `"quick_gelu"` is x * sigmoid(1.702 x),
    `"hard_swish"` x * min(max(x + 3, 0), 6) / 6 (Howard et al. 2019, MobileNetV3).

    Raises:
        ValueError: No activation is called `name`; the closest names are given.
    """
    if name not in _ACTIVATIONS:
        hint = did_you_mean(name, _ACTIVATIONS, count=2, cutoff=0.4)
        raise ValueError(f"Unknown activation {name!r}.{hint} Known: {', '.join(_ACTIVATIONS)}.")
    return _ACTIVATIONS[name]
