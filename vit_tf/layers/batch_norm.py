"""Batch normalisation as torch's models have it, which inference can fold into its neighbour."""

from collections.abc import Iterable

import keras
import numpy as np
from keras import ops

# torch's defaults; Keras' momentum is the share that stays, torch's the share that changes.
_EPSILON = 1e-5
_MOMENTUM = 0.9


@keras.saving.register_keras_serializable(package="vit_tf")
class BatchNorm(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` that can be folded into a dense layer or convolution.

    Outside of training a batch norm only scales and shifts, by numbers that no longer change. Who
    owns it says with `follows` or `precedes` which layer stands beside it, with nothing between
    the two; `fold` then multiplies that layer's kernel by the scale.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.folded = False
        self._neighbour = None
        self._comes_first = False

    def follows(self, layer: keras.layers.Layer) -> "BatchNorm":
        """Says that its input is the output of a dense layer or convolution; returns itself."""
        self._comes_first = False
        self._neighbour = lambda: layer  # hidden, so that Keras takes it for no part of the norm
        return self

    def precedes(self, layer: keras.layers.Layer) -> "BatchNorm":
        """Says that its output is the input of a dense layer, or 1x1 convolution, with a bias.

        Returns itself. A larger convolution would also see the zeros around its input.
        """
        self.follows(layer)
        self._comes_first = True
        return self

    @property
    def foldable(self) -> bool:
        """Whether there is a neighbour to fold it into, and that has not been done."""
        learns_both = self.scale and self.center
        return self._neighbour is not None and learns_both and not self.folded

    def fold(self) -> None:
        """Puts scale and shift into the neighbour; the norm keeps a shift if it has no bias.

        Both layers must be built. The norm's other weights are gone afterwards, and training mode
        is as inference.
        """
        layer = self._neighbour()
        scale, shift = self._scale_and_shift()
        kernel = np.asarray(layer.kernel, np.float64)
        if self._comes_first:
            products = shift @ kernel.reshape(kernel.shape[-2:])
            layer.bias.assign(np.asarray(layer.bias, np.float64) + products)
            layer.kernel.assign(kernel * scale[:, None])
            shift = None
        else:
            # A depth-wise kernel ends in (channels, outputs of a channel).
            outputs = kernel.shape[-2:] if _is_depthwise(layer) else kernel.shape[-1:]
            layer.kernel.assign(kernel * scale.reshape(outputs))
            if layer.bias is not None:
                layer.bias.assign(np.asarray(layer.bias, np.float64) * scale + shift)
                shift = None
        self._keep_only(shift)

    def _scale_and_shift(self):
        weights = (self.gamma, self.beta, self.moving_mean, self.moving_variance)
        gamma, beta, mean, variance = (np.asarray(weight, np.float64) for weight in weights)
        scale = gamma / np.sqrt(variance + self.epsilon)
        return scale, beta - mean * scale

    def _keep_only(self, shift):
        if shift is not None:
            self.beta.assign(shift)
        kept = () if shift is None else ("beta",)
        for name in {"gamma", "beta", "moving_mean", "moving_variance"}.difference(kept):
            self._untrack_variable(getattr(self, name))
            setattr(self, name, None)
        self.folded = True

    def build(self, input_shape):
        """Creates gamma, beta, mean and variance, each [channels]."""
        super().build(input_shape)
        self.input_spec = None  # a sequence comes as a matrix or not, see `layers.products`

    def call(self, inputs, training=None, mask=None):
        """Normalises [..., channels]."""
        if self.folded:
            return (
                inputs if self.beta is None else ops.add(inputs, ops.cast(self.beta, inputs.dtype))
            )
        self._reduction_axes = tuple(range(len(inputs.shape) - 1))
        return super().call(inputs, training=training, mask=mask)


def batch_norm(**kwargs) -> BatchNorm:
    """Batch normalisation over the last axis with the numbers that torch starts from.

    In training it normalises by the mean and variance of the replica's batch, or of all replicas'
    where `synchronized` says so, and moves its statistics by a tenth of what it saw.

    Args:
        **kwargs: Arguments of `keras.layers.BatchNormalization`: `name`, `dtype`,
            `gamma_initializer`, ...
    """
    return BatchNorm(momentum=_MOMENTUM, epsilon=_EPSILON, **kwargs)


def foldable_norms(layers: Iterable[keras.layers.Layer]) -> list[BatchNorm]:
    """Those of some layers that are batch norms with a neighbour to fold them into."""
    return [layer for layer in layers if isinstance(layer, BatchNorm) and layer.foldable]


def _is_depthwise(layer):
    return isinstance(layer, keras.layers.DepthwiseConv2D)
