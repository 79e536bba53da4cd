"""Convolutions whose kernels start as torch's `kaiming_normal_(mode="fan_out")` makes them."""

import math

import keras


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


def _normal(filters, kernel_size):
    return keras.initializers.RandomNormal(stddev=math.sqrt(2 / (filters * kernel_size**2)))
