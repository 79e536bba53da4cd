"""Attention to keys and values of a smaller grid than that of the queries."""

import math
from collections.abc import Callable

import keras
from keras import ops

from vit_tf.layers.attention import check_heads, projection
from vit_tf.layers.batch_norm import batch_norm
from vit_tf.layers.dot_product import attend
from vit_tf.layers.fan_out_conv import fan_out_depthwise
from vit_tf.layers.intermediates import NOWHERE, Intermediates
from vit_tf.layers.products import linear, rows


@keras.saving.register_keras_serializable(package="vit_tf")
class ReducedAttention(keras.layers.Layer):
    """Lightweight multi-head self-attention (Guo et al. 2021, "CMT", section 3.3).

    A depth-wise convolution, whose kernel is as large as its stride, and batch norm make the grid
    smaller for keys and values; rows and columns that fill no kernel are left out. Input and output
    are [batch, rows * columns, width].

    Args:
        num_heads: Number of heads; must divide the width of the input.
        grid_size: (rows, columns) of the tokens.
        reduction: Kernel and stride; 1 for neither convolution nor batch norm.
        attention_dropout: Rate of dropout on the attention weights.
        initialization: How the dense kernels start, see `layers.initialization`.

    Raises:
        ValueError: The reduction leaves no key; at build, `num_heads` does not divide the width.
    """

    def __init__(
        self,
        num_heads: int,
        grid_size: tuple[int, int],
        reduction: int = 1,
        attention_dropout: float = 0.0,
        initialization: str = "deit",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.grid_size = tuple(grid_size)
        self.reduction = reduction
        self.attention_dropout = attention_dropout
        self.initialization = initialization
        if min(self.key_grid) < 1:
            raise ValueError(
                f"A reduction by {reduction} leaves no key of a grid of {self.grid_size[0]} x "
                f"{self.grid_size[1]}; take a larger image or a smaller reduction."
            )
        self.dropout = keras.layers.Dropout(
            attention_dropout, dtype=self.dtype_policy, name="dropout"
        )

    @property
    def key_grid(self) -> tuple[int, int]:
        """The (rows, columns) of keys and values."""
        return tuple(side // self.reduction for side in self.grid_size)

    def build(self, input_shape):
        """Creates the dense layers [width, width], the convolution and its norm."""
        width, policy = input_shape[-1], self.dtype_policy
        check_heads(self.num_heads, width)
        self.query, self.key, self.value, self.out = (
            projection(width, 1, width, self.initialization, dtype=policy, name=name)
            for name in ("query", "key", "value", "out")
        )
        for layer in (self.query, self.key, self.value, self.out):
            layer.build((None, None, width))
        self.reduce = self.reduce_norm = None
        if self.reduction > 1:
            self.reduce = fan_out_depthwise(
                width, self.reduction, strides=self.reduction, dtype=policy, name="reduce"
            )
            self.reduce_norm = batch_norm(dtype=policy, name="reduce_norm").follows(self.reduce)
            for layer in (self.reduce, self.reduce_norm):
                layer.build((None, None, None, width))

    def call(
        self,
        tokens,
        positions: Callable = lambda scores: scores,
        training=None,
        intermediates: Intermediates = NOWHERE,
    ):
        """Attends.

        Args:
            tokens: [batch, rows * columns, width].
            positions: Applied to the scores [batch, heads, queries, keys], see `PairPositions`.
            training: Whether the batch norm takes the batch's statistics, and dropout is active.
            intermediates: Takes `attn_weights` [batch, heads, queries, keys].
        """
        batch, _, width = ops.shape(tokens)
        reduced = tokens
        if self.reduce is not None:
            grid = ops.reshape(tokens, (batch, *self.grid_size, width))
            grid = self.reduce_norm(self.reduce(grid), training=training)
            reduced = ops.reshape(grid, (batch, math.prod(self.key_grid), width))
        attended = attend(
            _apply(self.query, tokens),
            _apply(self.key, reduced),
            _apply(self.value, reduced),
            self.num_heads,
            scale=math.sqrt(self.num_heads / width),
            positions=positions,
            dropout=lambda weights: self.dropout(weights, training=training),
            intermediates=intermediates,
        )
        return _apply(self.out, attended)

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {
            "num_heads": self.num_heads,
            "grid_size": self.grid_size,
            "reduction": self.reduction,
            "attention_dropout": self.attention_dropout,
            "initialization": self.initialization,
        }
        return {**super().get_config(), **config}


def _apply(dense, tokens):
    return ops.reshape(linear(dense, rows(tokens)), ops.shape(tokens))
