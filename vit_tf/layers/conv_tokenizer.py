"""Convolutions and max-pooling in the place of the patch embedding."""

from collections.abc import Sequence

import keras
from keras import ops

from vit_tf.layers.initialization import get_initializer
from vit_tf.layers.intermediates import NOWHERE, Intermediates
from vit_tf.layers.max_pool import max_pool

_POOL_SIZE = 3
_POOL_STRIDE = 2


def tokenizer_stride(layers: int, kernel_size: int, stride: int | None = None) -> int:
    """Pixels of the image between neighbouring output vectors of a `ConvTokenizer`."""
    return (_POOL_STRIDE * (_default_stride(kernel_size) if stride is None else stride)) ** layers


@keras.saving.register_keras_serializable(package="vit_tf")
class ConvTokenizer(keras.layers.Layer):
    """Convolution, ReLU and max-pooling, once or more (Hassani et al. 2021, section 3.3).

    Convolutions have no bias; the pooling takes windows of 3 x 3 at a stride of 2, with one pixel
    of padding on every side. Input [batch, height, width, channels], output [batch, rows, columns,
    width_out]; each step takes a side to floor((side + 2 padding - kernel) / stride) + 1 and that
    to its half, rounded up.

    Args:
        widths: Output channels of the convolutions; the last are the size of the output vectors.
        kernel_size: Side of the kernels in pixels.
        stride: Stride of the convolutions; by default kernel_size // 2 - 1, or 1 if that is less.
        padding: Pixels of zeros on every side of a convolution's input; by default
            kernel_size // 2, or 1 if that is less.
        initialization: How the kernels start, see `layers.initialization`.

    Raises:
        ValueError: There are no widths; when a shape is computed: a side is smaller than a kernel.
    """

    def __init__(
        self,
        widths: Sequence[int],
        kernel_size: int = 3,
        stride: int | None = None,
        padding: int | None = None,
        initialization: str = "compact_transformers",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.widths = tuple(widths)
        if not self.widths:
            raise ValueError("A convolutional tokenizer needs one convolution at least, got none.")
        self.kernel_size = kernel_size
        self.stride = _default_stride(kernel_size) if stride is None else stride
        self.padding = max(1, kernel_size // 2) if padding is None else padding
        self.initialization = initialization
        self.convolutions = [
            keras.layers.Conv2D(
                width,
                kernel_size,
                strides=self.stride,
                use_bias=False,
                kernel_initializer=get_initializer(initialization, "patch_kernel"),
                data_format="channels_last",
                dtype=self.dtype_policy,
                name=f"conv{index}",
            )
            for index, width in enumerate(self.widths)
        ]

    @property
    def intermediate_names(self) -> list[str]:
        """What `call` can record: each step after its pooling."""
        return [f"pool{index}" for index in range(len(self.widths))]

    def build(self, input_shape):
        """Creates the kernels [kernel_size, kernel_size, channels, width]."""
        channels = input_shape[-1]
        for convolution in self.convolutions:
            convolution.build((None, None, None, channels))
            channels = convolution.filters

    def call(self, images, intermediates: Intermediates = NOWHERE):
        """Maps [batch, height, width, channels] to [batch, rows, columns, width]."""
        features = images
        for name, convolution in zip(self.intermediate_names, self.convolutions, strict=True):
            features = ops.relu(convolution(_pad(features, self.padding)))
            # Zeros are as good as minus infinity here: nothing is below them after ReLU.
            features = max_pool(_pad(features, _POOL_SIZE // 2), _POOL_SIZE, _POOL_STRIDE)
            intermediates.record(name, features)
        return features

    def compute_output_shape(self, input_shape):
        """Returns (batch, rows, columns, width)."""
        batch, *sides, _ = input_shape
        return (batch, *map(self._output_side, sides), self.widths[-1])

    def _output_side(self, side):
        for _ in self.widths:
            if side is None:
                return None
            if side + 2 * self.padding < self.kernel_size:
                raise ValueError(
                    f"{len(self.widths)} convolutions of {self.kernel_size} x {self.kernel_size} "
                    f"with stride {self.stride} and padding {self.padding} need larger images: "
                    f"one of them is given a side of {side} pixels."
                )
            side = (side + 2 * self.padding - self.kernel_size) // self.stride + 1
            side = -(-side // _POOL_STRIDE)
        return side

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {
            "widths": self.widths,
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "padding": self.padding,
            "initialization": self.initialization,
        }
        return {**super().get_config(), **config}


def _default_stride(kernel_size):
    return max(1, kernel_size // 2 - 1)


def _pad(features, pixels):
    """Adds zeros on every side; padding "same" would put more of them at the end."""
    if not pixels:
        return features
    return ops.pad(features, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
