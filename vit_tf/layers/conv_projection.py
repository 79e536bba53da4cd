"""Attention whose queries, keys and values come out of convolutions over the grid of tokens."""

import math

import keras
from keras import ops

from vit_tf.layers.attention import check_heads, projection
from vit_tf.layers.batch_norm import batch_norm
from vit_tf.layers.conv_embedding import zero_padded
from vit_tf.layers.dot_product import attend
from vit_tf.layers.intermediates import NOWHERE, Intermediates
from vit_tf.layers.products import linear, rows

_PARTS = ("query", "key", "value")


@keras.saving.register_keras_serializable(package="vit_tf")
class ConvProjectionAttention(keras.layers.Layer):
    """Attention with convolutional projections (Wu et al. 2021, "CvT", section 3.3).

    Queries, keys and values each have a depth-wise convolution without bias, batch norm, and a
    linear projection with bias of their own. Keys and values take strides and are fewer. Tokens
    before those of the grid (a class token) pass the convolutions by. Input and output are
    [batch, prefix + rows * columns, width].

    The products are scaled by width ** -0.5, not by that of a head, as in microsoft/CvT.

    Args:
        num_heads: Number of heads; must divide the width of the input.
        grid_size: (rows, columns) of the last tokens; those before them are no part of the grid.
        kernel_size: Side of the depth-wise kernels, an odd number.
        key_value_stride: Stride of the convolutions of keys and values; sides are rounded up.
        attention_dropout: Rate of dropout on the attention weights.
        initialization: How the dense kernels start, see `layers.initialization`.

    Raises:
        ValueError: The kernel's side is even; at build, `num_heads` does not divide the width.
    """

    def __init__(
        self,
        num_heads: int,
        grid_size: tuple[int, int],
        kernel_size: int = 3,
        key_value_stride: int = 2,
        attention_dropout: float = 0.0,
        initialization: str = "deit",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if kernel_size % 2 == 0:
            raise ValueError(
                f"The kernel of a convolutional projection has an odd side, so that there is a "
                f"query for every token; got {kernel_size}."
            )
        self.num_heads = num_heads
        self.grid_size = tuple(grid_size)
        self.kernel_size = kernel_size
        self.key_value_stride = key_value_stride
        self.attention_dropout = attention_dropout
        self.initialization = initialization
        policy = self.dtype_policy
        bound = 1 / kernel_size  # torch's default: 1 / sqrt(fan_in), and a channel has one input
        self.convolutions = [
            keras.layers.DepthwiseConv2D(
                kernel_size,
                strides=stride,
                use_bias=False,
                depthwise_initializer=keras.initializers.RandomUniform(-bound, bound),
                data_format="channels_last",
                dtype=policy,
                name=f"{part}_conv",
            )
            for part, stride in zip(_PARTS, (1, key_value_stride, key_value_stride), strict=True)
        ]
        self.norms = [
            batch_norm(dtype=policy, name=f"{part}_norm").follows(convolution)
            for part, convolution in zip(_PARTS, self.convolutions, strict=True)
        ]
        self.dropout = keras.layers.Dropout(attention_dropout, dtype=policy, name="dropout")

    def build(self, input_shape):
        """Creates the depth-wise kernels, the norms, and the dense layers [width, width]."""
        width = input_shape[-1]
        check_heads(self.num_heads, width)
        self.projections = [self._dense(part, width) for part in _PARTS]
        self.out = self._dense("out", width)
        for layer in (*self.convolutions, *self.norms):
            layer.build((None, None, None, width))
        for layer in (*self.projections, self.out):
            layer.build((None, None, width))

    def _dense(self, name, width):
        return projection(width, 1, width, self.initialization, dtype=self.dtype_policy, name=name)

    def call(self, tokens, training=None, intermediates: Intermediates = NOWHERE):
        """Attends.

        Args:
            tokens: [batch, prefix + rows * columns, width].
            training: Whether batch norms take the batch's statistics, and dropout is active.
            intermediates: Takes `conv_proj_q`, `conv_proj_k` and `conv_proj_v`, what comes out of
                the batch norms, and `attn_weights` [batch, heads, queries, keys].
        """
        batch, length, width = ops.shape(tokens)
        prefix = length - math.prod(self.grid_size)
        before, patches = tokens[:, :prefix], tokens[:, prefix:]
        grid = ops.reshape(patches, (batch, *self.grid_size, width))
        grid = zero_padded(grid, self.kernel_size // 2)
        projected = []
        for part, convolve, norm, dense in zip(
            _PARTS, self.convolutions, self.norms, self.projections, strict=True
        ):
            convolved = norm(convolve(grid), training=training)
            convolved = ops.reshape(convolved, (batch, math.prod(convolved.shape[1:3]), width))
            intermediates.record(f"conv_proj_{part[0]}", convolved)
            if prefix:
                convolved = ops.concatenate([before, convolved], axis=1)
            projected.append(self._apply(dense, convolved))
        attended = attend(
            *projected,
            self.num_heads,
            scale=1 / math.sqrt(width),
            dropout=lambda weights: self.dropout(weights, training=training),
            intermediates=intermediates,
        )
        return self._apply(self.out, attended)

    def _apply(self, dense, tokens):
        return ops.reshape(linear(dense, rows(tokens)), ops.shape(tokens))

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {
            "num_heads": self.num_heads,
            "grid_size": self.grid_size,
            "kernel_size": self.kernel_size,
            "key_value_stride": self.key_value_stride,
            "attention_dropout": self.attention_dropout,
            "initialization": self.initialization,
        }
        return {**super().get_config(), **config}
