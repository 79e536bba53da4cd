"""The seam where a backend's own kernels take the place of what layers compute with `keras.ops`.

Layers know no backend. Whoever does, the training step on TensorFlow's CPUs for one, hands them
kernels for as long as it traces; at all other times (evaluation, export, other backends) nothing is
in place and layers compute as they are written.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, Protocol

import keras

Tensor = Any  # of the backend


class Kernels(Protocol):
    """Differentiable functions that compute what the layers' own formulas do.

    They are for steps that are not compiled as a whole; a compiler has kernels of its own.
    """

    def pays(self, x: Tensor) -> bool:
        """Whether the kernels are faster than the formulas on such a tensor."""

    def linear(self, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        """The product of matrices `x` and `kernel`, plus a bias, in the dtype of x."""

    def gelu(self, x: Tensor) -> Tensor:
        """The exact GELU of a tensor of any shape, in its dtype."""

    def gelu_tanh(self, x: Tensor) -> Tensor:
        """The tanh approximation of GELU."""

    def softmax(self, x: Tensor) -> Tensor:
        """Softmax over the last axis, computed in at least float32."""

    def layer_norm(self, x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Tensor:
        """Normalises the last axis in at least float32, then scales by gamma and adds beta."""


_in_place: contextvars.ContextVar[Kernels | None] = contextvars.ContextVar("kernels", default=None)


@contextlib.contextmanager
def use(kernels: Kernels | None) -> Iterator[None]:
    """Inside, layers compute with `kernels` where these pay; None is as without."""
    before = _in_place.set(kernels)
    try:
        yield
    finally:
        _in_place.reset(before)


def kernels_for(x: Tensor) -> Kernels | None:
    """The kernels to use on such a tensor, or None: the layer's own formula."""
    kernels = _in_place.get()
    return kernels if kernels is not None and kernels.pays(x) else None


@keras.saving.register_keras_serializable(package="vit_tf")
class LayerNorm(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last axis, by kernels where some are in place."""

    def call(self, inputs):
        """Normalises [..., width]."""
        kernels = kernels_for(inputs)
        if kernels is None:
            return super().call(inputs)
        return kernels.layer_norm(inputs, self.gamma, self.beta, self.epsilon)
