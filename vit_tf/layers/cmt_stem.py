"""The stem of CMT: small convolutions with the activation before the norm."""

from collections.abc import Sequence

import keras

from vit_tf.layers.activations import get_activation
from vit_tf.layers.batch_norm import batch_norm
from vit_tf.layers.conv_embedding import convolved_size, zero_padded
from vit_tf.layers.fan_out_conv import fan_out_conv
from vit_tf.layers.intermediates import NOWHERE, Intermediates

_KERNEL, _PADDING = 3, 1


@keras.saving.register_keras_serializable(package="vit_tf")
class CMTStem(keras.layers.Layer):
    """3x3 convolutions, each with an activation and then batch norm (Guo et al. 2021, "CMT").

    The convolutions have biases and one pixel of zeros on every side. Input [batch, height, width,
    channels]; output [batch, rows, columns, width_out], where each stride of 2 halves the sides,
    rounding up.

    Args:
        width: Output channels of each convolution.
        strides: Their strides.
        activation: Name of the activation, see `layers.activations`.
    """

    def __init__(
        self,
        width: int,
        strides: Sequence[int] = (2, 1, 1),
        activation: str = "gelu",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.width = width
        self.strides = tuple(strides)
        self.activation = activation
        self._activate = get_activation(activation)
        policy = self.dtype_policy
        self.convolutions = [
            fan_out_conv(width, _KERNEL, strides=stride, dtype=policy, name=f"conv{number}")
            for number, stride in enumerate(self.strides, 1)
        ]
        self.norms = [
            batch_norm(dtype=policy, name=f"norm{number + 1}") for number in range(len(strides))
        ]

    def build(self, input_shape):
        """Creates kernels [3, 3, channels, width], biases, and the norms."""
        channels = input_shape[-1]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            convolution.build((None, None, None, channels))
            channels = self.width
            norm.build((None, None, None, channels))

    def call(self, images, training=None, intermediates: Intermediates = NOWHERE):
        """Runs the stem; records `norm1`, `norm2`, ..., what comes out of each batch norm."""
        features = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            features = self._activate(convolution(zero_padded(features, _PADDING)))
            features = norm(features, training=training)
            intermediates.record(norm.name, features)
        return features

    @property
    def intermediate_names(self) -> list[str]:
        """What `call` can record, in the order of computation."""
        return [norm.name for norm in self.norms]

    def compute_output_shape(self, input_shape):
        """Returns (batch, rows, columns, width)."""
        batch, *sides, _ = input_shape
        for stride in self.strides:
            sides = [convolved_size(side, _KERNEL, stride, _PADDING) for side in sides]
        return (batch, *sides, self.width)

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {"width": self.width, "strides": self.strides, "activation": self.activation}
        return {**super().get_config(), **config}
