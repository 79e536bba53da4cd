"""The encoder block of CvT."""

import keras

from vit_tf.layers.conv_projection import ConvProjectionAttention
from vit_tf.layers.encoder_block import EncoderBlock


@keras.saving.register_keras_serializable(package="vit_tf")
class ConvProjectionBlock(EncoderBlock):
    """An `EncoderBlock` whose attention has convolutional projections (Wu et al. 2021, "CvT").

    Input and output are [batch, prefix + rows * columns, width].

    Args:
        num_heads: Number of attention heads.
        mlp_dim: Size of the MLP's hidden layer.
        grid_size: (rows, columns) of the last tokens; those before them are no part of the grid.
        kernel_size: Side of the depth-wise kernels, an odd number.
        key_value_stride: Stride of the convolutions of keys and values.
        **kwargs: Other arguments of `EncoderBlock`, all but `qkv_bias`.
    """

    intermediate_names = (
        *(f"conv_proj_{part}" for part in "qkv"),
        *EncoderBlock.intermediate_names,
    )

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        grid_size: tuple[int, int],
        kernel_size: int = 3,
        key_value_stride: int = 2,
        **kwargs,
    ):
        self.grid_size = tuple(grid_size)
        self.kernel_size = kernel_size
        self.key_value_stride = key_value_stride
        super().__init__(num_heads, mlp_dim, **kwargs)

    def create_attention(self):
        """Creates the layer `attention`, of tokens to as many tokens."""
        return ConvProjectionAttention(
            self.num_heads,
            self.grid_size,
            self.kernel_size,
            self.key_value_stride,
            self.attention_dropout,
            self.initialization,
            dtype=self.dtype_policy,
            name="attention",
        )

    def get_config(self):
        """Returns the constructor's arguments."""
        config = super().get_config()
        del config["qkv_bias"]  # queries, keys and values always have them
        own = {
            "grid_size": self.grid_size,
            "kernel_size": self.kernel_size,
            "key_value_stride": self.key_value_stride,
        }
        return {**config, **own}
