"""Max-pooling whose gradient XLA can compute the same way every time."""

import keras
from keras import ops

from vit_tf.layers.products import compiler_scatters


def max_pool(grid, size: int, stride: int, padding: str = "valid"):
    """The maximum of every window, as `keras.ops.max_pool` has it.

    Where XLA compiles for anything but a TPU, TensorFlow refuses the gradient of its own operation
    once operations have to be deterministic, as they have on CPUs by default. There the windows'
    rows and then their columns are compared one by one; where several are the largest, the gradient
    goes to one of them as well, though not always to the same one.

    Args:
        grid: [batch, height, width, channels].
        size: Side of the windows in places.
        stride: From one window to the next.
        padding: "valid", or "same" for ceil(side / stride) windows, what lies outside being minus
            infinity.
    """
    if compiler_scatters():
        return ops.max_pool(
            grid, size, strides=stride, padding=padding, data_format="channels_last"
        )
    for axis in (1, 2):
        side = grid.shape[axis]
        if padding == "same":
            missing = max((-(-side // stride) - 1) * stride + size - side, 0)
            pads = [(0, 0)] * 4
            pads[axis] = (missing // 2, missing - missing // 2)
            grid = ops.pad(grid, pads, constant_values=float("-inf"))
            side += missing
        span = (side - size) // stride * stride + 1
        parts = [_every(grid, axis, first, first + span, stride) for first in range(size)]
        grid = parts[0]
        for part in parts[1:]:
            grid = ops.maximum(grid, part)
    return grid


@keras.saving.register_keras_serializable(package="vit_tf")
class MaxPooling(keras.layers.MaxPooling2D):
    """`keras.layers.MaxPooling2D` of square windows, by `max_pool`."""

    def call(self, inputs):
        """Maps [batch, height, width, channels] to [batch, rows, columns, channels]."""
        return max_pool(inputs, self.pool_size[0], self.strides[0], self.padding)


def _every(grid, axis, first, end, stride):
    slices = [slice(None)] * 4
    slices[axis] = slice(first, end, stride)
    return grid[tuple(slices)]
