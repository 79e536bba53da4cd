"""Convolutional embedding: a strided convolution and a LayerNorm over its channels."""

import keras
from keras import ops

from vit_tf.layers.initialization import get_initializer
from vit_tf.layers.kernels import LayerNorm


def zero_padded(grid, padding: int):
    """[batch, rows, columns, channels] with as many zeros on all four sides.

    Padding "same" would put the only pixel of a stride of 2 at the end; torch has it on both sides.
    """
    if not padding:
        return grid
    return ops.pad(grid, ((0, 0), (padding, padding), (padding, padding), (0, 0)))


def convolved_size(size: int | None, kernel_size: int, strides: int, padding: int) -> int | None:
    """Side of what a convolution makes of a side, zeros on both ends of it; None stays None."""
    return None if size is None else (size + 2 * padding - kernel_size) // strides + 1


@keras.saving.register_keras_serializable(package="vit_tf")
class ConvEmbedding(keras.layers.Layer):
    """Convolution with a bias, then LayerNorm over channels (Wu et al. 2021, "CvT", section 3.2).

    Input [batch, rows, columns, channels]; output [batch, new rows, new columns, width], where a
    side n becomes floor((n + 2 * padding - kernel_size) / strides) + 1.

    Args:
        width: Size of the output vectors.
        kernel_size: Side of the kernel.
        strides: Rows and columns from one position to the next.
        padding: Zeros on each side of the input.
        norm_epsilon: Epsilon of the LayerNorm.
        kernel_initializer: How the kernel starts; by default as torch starts a convolution.
    """

    def __init__(
        self,
        width: int,
        kernel_size: int,
        strides: int,
        padding: int = 0,
        norm_epsilon: float = 1e-5,
        kernel_initializer: str | keras.Initializer | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.width = width
        self.kernel_size = kernel_size
        self.strides = strides
        self.padding = padding
        self.norm_epsilon = norm_epsilon
        self.kernel_initializer = keras.initializers.get(
            kernel_initializer or get_initializer("deit", "patch_kernel")
        )
        self.projection = keras.layers.Conv2D(
            width,
            kernel_size,
            strides=strides,
            kernel_initializer=self.kernel_initializer,
            data_format="channels_last",
            dtype=self.dtype_policy,
            name="projection",
        )
        self.norm = LayerNorm(epsilon=norm_epsilon, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape):
        """Creates the kernel [side, side, channels, width], its bias, and the norm's weights."""
        self.projection.build((None, None, None, input_shape[-1]))
        self.norm.build((None, None, None, self.width))

    def call(self, grid):
        """Maps [batch, rows, columns, channels] to [batch, new rows, new columns, width]."""
        return self.norm(self.projection(zero_padded(grid, self.padding)))

    def compute_output_shape(self, input_shape):
        """Returns (batch, new rows, new columns, width)."""
        batch, *sides, _ = input_shape
        window = (self.kernel_size, self.strides, self.padding)
        return (batch, *(convolved_size(side, *window) for side in sides), self.width)

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {
            "width": self.width,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "norm_epsilon": self.norm_epsilon,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
        return {**super().get_config(), **config}
