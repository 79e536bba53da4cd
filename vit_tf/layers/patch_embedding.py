"""Patch embedding: a strided convolution that turns an image into a grid of vectors."""

import keras
from keras import ops

from vit_tf.layers.initialization import get_initializer
from vit_tf.layers.kernels import kernels_for


@keras.saving.register_keras_serializable(package="vit_tf")
class PatchEmbedding(keras.layers.Layer):
    """Projects non-overlapping patches linearly (Dosovitskiy et al. 2020, eq. 1).

    Input [batch, height, width, channels], output [batch, height // ph, width // pw, width_out].

    Args:
        width: Size of the output vectors.
        patch_size: (height, width) of a patch in pixels.
        initialization: How the kernel starts, see `layers.initialization`.
    """

    def __init__(
        self,
        width: int,
        patch_size: tuple[int, int],
        initialization: str = "vision_transformer",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.width = width
        self.patch_size = tuple(patch_size)
        self.initialization = initialization
        self.projection = keras.layers.Conv2D(
            width,
            self.patch_size,
            strides=self.patch_size,
            padding="valid",
            kernel_initializer=get_initializer(initialization, "patch_kernel"),
            data_format="channels_last",
            dtype=self.dtype_policy,
            name="projection",
        )

    def build(self, input_shape):
        """Creates the kernel [ph, pw, channels, width] and the bias [width]."""
        self.projection.build(input_shape)

    def call(self, images):
        """Maps [batch, height, width, channels] to [batch, grid_height, grid_width, width]."""
        kernels = kernels_for(images)
        if kernels is None:
            return self.projection(images)
        batch, rows, columns, channels = images.shape
        height, width = self.patch_size
        grid = (rows // height, columns // width)
        patches = images[:, : grid[0] * height, : grid[1] * width]
        patches = ops.reshape(patches, (batch, grid[0], height, grid[1], width, channels))
        patches = ops.transpose(patches, (0, 1, 3, 2, 4, 5))
        features = height * width * channels
        kernel = ops.reshape(self.projection.kernel, (features, self.width))
        weights = (ops.cast(weight, images.dtype) for weight in (kernel, self.projection.bias))
        outputs = kernels.linear(ops.reshape(patches, (-1, features)), *weights)
        return ops.reshape(outputs, (batch, *grid, self.width))

    def compute_output_shape(self, input_shape):
        """Returns (batch, grid_height, grid_width, width)."""
        return self.projection.compute_output_shape(input_shape)

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {
            "width": self.width,
            "patch_size": self.patch_size,
            "initialization": self.initialization,
        }
        return {**super().get_config(), **config}
