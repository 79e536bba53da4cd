"""A stack of small convolutions in the place of the patch embedding."""

import math
from collections.abc import Sequence

import keras
from keras import ops

from vit_tf.layers.batch_norm import batch_norm
from vit_tf.layers.intermediates import NOWHERE, Intermediates


def default_stem_strides(widths: Sequence[int]) -> tuple[int, ...]:
    """Strides of a stem: 2 where the width grows (as it does at the first convolution), else 1."""
    return tuple(
        2 if width > before else 1 for before, width in zip((0, *widths), widths, strict=False)
    )


@keras.saving.register_keras_serializable(package="vit_tf")
class ConvStem(keras.layers.Layer):
    """3x3 convolutions, then a 1x1 convolution (Xiao et al. 2021, "Early Convolutions ...").

    Each 3x3 convolution has no bias, one pixel of zeros on every side, and BatchNorm and ReLU
    behind it; the 1x1 convolution at the end has a bias and nothing behind it. Kernels start as in
    facebookresearch/pycls. Input [batch, height, width, channels]; output [batch, rows, columns,
    width_out], where each stride of 2 halves the sides, rounding up.

    Args:
        width: Size of the output vectors.
        widths: Output channels of the 3x3 convolutions.
        strides: Their strides; those of `default_stem_strides` unless given.

    Raises:
        ValueError: The number of strides is not that of the widths, or there is none of either.
    """

    def __init__(
        self, width: int, widths: Sequence[int], strides: Sequence[int] | None = None, **kwargs
    ):
        super().__init__(**kwargs)
        self.width = width
        self.widths = tuple(widths)
        self.strides = default_stem_strides(widths) if strides is None else tuple(strides)
        if not self.widths or len(self.strides) != len(self.widths):
            raise ValueError(
                f"A convolutional stem needs as many strides as widths, and one at least, got "
                f"widths {self.widths} and strides {self.strides}."
            )
        policy = self.dtype_policy
        self.convolutions = [
            keras.layers.Conv2D(
                channels,
                3,
                strides=stride,
                use_bias=False,
                # torch's default: U(-1 / sqrt(fan_in), 1 / sqrt(fan_in))
                kernel_initializer=keras.initializers.VarianceScaling(
                    1 / 3, mode="fan_in", distribution="uniform"
                ),
                data_format="channels_last",
                dtype=policy,
                name=f"conv{index}",
            )
            for index, (channels, stride) in enumerate(zip(self.widths, self.strides, strict=True))
        ]
        self.norms = [
            batch_norm(dtype=policy, name=f"norm{index}").follows(convolution)
            for index, convolution in enumerate(self.convolutions)
        ]
        self.out = keras.layers.Conv2D(
            width,
            1,
            kernel_initializer=keras.initializers.RandomNormal(stddev=math.sqrt(2 / width)),
            data_format="channels_last",
            dtype=policy,
            name="out",
        )

    def build(self, input_shape):
        """Creates kernels [3, 3, channels, width], the norms, and the last kernel and bias."""
        channels = input_shape[-1]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            convolution.build((None, None, None, channels))
            channels = convolution.filters
            norm.build((None, None, None, channels))
        self.out.build((None, None, None, channels))

    def call(self, images, training=None, intermediates: Intermediates = NOWHERE):
        """Runs the stem; records `conv0`, `conv1`, ..., each after its BatchNorm and ReLU."""
        features = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            # Padding "same" would put the only pixel of a stride of 2 at the end.
            features = convolution(ops.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0))))
            features = ops.relu(norm(features, training=training))
            intermediates.record(convolution.name, features)
        return self.out(features)

    def compute_output_shape(self, input_shape):
        """Returns (batch, rows, columns, width)."""
        batch, *sides, _ = input_shape
        for stride in self.strides:
            sides = [side if side is None else -(-side // stride) for side in sides]
        return (batch, *sides, self.width)

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {"width": self.width, "widths": self.widths, "strides": self.strides}
        return {**super().get_config(), **config}
