"""Convolutions whose kernels start as torch's `kaiming_normal_(mode="fan_out")` makes them."""

import math

import keras
from keras import ops


def fan_out_conv(filters: int, kernel_size: int, strides: int = 1, **kwargs) -> keras.layers.Conv2D:
    """A convolution with a bias, its kernel N(0, 2 / (kernel_size^2 * filters)).

    Args:
        filters: Output channels.
        kernel_size: Side of the kernel.
        strides: Rows and columns from one position to the next.
        **kwargs: Further arguments of `keras.layers.Conv2D`.
    """
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        kernel_initializer=_normal(filters, kernel_size),
        data_format="channels_last",
        **kwargs,
    )


def fan_out_depthwise(
    channels: int, kernel_size: int, strides: int = 1, **kwargs
) -> keras.layers.DepthwiseConv2D:
    """A depth-wise convolution with a bias, which starts as one of all channels would.

    torch counts the outputs of all groups, so the variance is 2 / (kernel_size^2 * channels).

    Args:
        channels: Input channels.
        kernel_size: Side of the kernel.
        strides: Rows and columns from one position to the next.
        **kwargs: Further arguments of `keras.layers.DepthwiseConv2D`.
    """
    return keras.layers.DepthwiseConv2D(
        kernel_size,
        strides=strides,
        depthwise_initializer=_normal(channels, kernel_size),
        data_format="channels_last",
        **kwargs,
    )


def beside_identity(depthwise: keras.layers.DepthwiseConv2D, grid):
    """Returns grid + depthwise(grid), of stride 1 and padding "same": [batch, rows, columns, c].

    The bias is added to the grid, not to the convolution: TensorFlow's graph optimizer takes a
    depth-wise convolution, a bias and a sum behind it for an operation that it does not have, and
    then gives up optimizing, or breaks the graph that other runtimes convert.
    """
    convolved = ops.depthwise_conv(
        grid, depthwise.kernel, strides=1, padding="same", data_format="channels_last"
    )
    return convolved + (grid + depthwise.bias)


def _normal(filters, kernel_size):
    return keras.initializers.RandomNormal(stddev=math.sqrt(2 / (filters * kernel_size**2)))
