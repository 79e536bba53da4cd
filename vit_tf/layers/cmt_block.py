"""The block of CMT: local perception, lightweight attention, inverted residual feed-forward."""

from collections.abc import Callable

import keras
from keras import ops

from vit_tf.layers.fan_out_conv import beside_identity, fan_out_depthwise
from vit_tf.layers.intermediates import NOWHERE, Intermediates
from vit_tf.layers.inverted_residual import InvertedResidualMLP
from vit_tf.layers.kernels import LayerNorm
from vit_tf.layers.reduced_attention import ReducedAttention
from vit_tf.layers.stochastic_depth import StochasticDepth


@keras.saving.register_keras_serializable(package="vit_tf")
class CMTBlock(keras.layers.Layer):
    """x + convolution(x), then + attention(norm(x)), then + feed_forward(norm(x)).

    Guo et al. 2021, "CMT: Convolutional Neural Networks Meet Vision Transformers", section 3.3.
    The convolution is depth-wise, 3x3. Input and output are [batch, rows, columns, width].

    Args:
        num_heads: Number of attention heads.
        mlp_dim: Hidden channels of the feed-forward network.
        grid_size: (rows, columns) of the input.
        reduction: By what keys' and values' sides are smaller, see `ReducedAttention`.
        dropout: Rate after the attention's projection and inside the feed-forward network.
        attention_dropout: Rate on the attention weights.
        stochastic_depth: Rate of dropping attention and feed-forward network, per example.
        norm_epsilon: Epsilon of both LayerNorms.
        activation: Name of the feed-forward network's activation.
    """

    intermediate_names = ("local_perception", "attn_weights", "attn", "after_attn", "mlp", "out")

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        grid_size: tuple[int, int],
        reduction: int = 1,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        norm_epsilon: float = 1e-6,
        activation: str = "gelu",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.grid_size = tuple(grid_size)
        self.reduction = reduction
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.stochastic_depth = stochastic_depth
        self.norm_epsilon = norm_epsilon
        self.activation = activation
        policy = self.dtype_policy
        self.attention_norm = LayerNorm(epsilon=norm_epsilon, dtype=policy, name="attention_norm")
        self.attention = ReducedAttention(
            num_heads, grid_size, reduction, attention_dropout, dtype=policy, name="attention"
        )
        self.attention_out_dropout = keras.layers.Dropout(dropout, dtype=policy)
        self.attention_depth = StochasticDepth(stochastic_depth, dtype=policy)
        self.mlp_norm = LayerNorm(epsilon=norm_epsilon, dtype=policy, name="mlp_norm")
        self.mlp = InvertedResidualMLP(mlp_dim, activation, dropout, dtype=policy, name="mlp")
        self.mlp_depth = StochasticDepth(stochastic_depth, dtype=policy)

    def build(self, input_shape):
        """Creates the weights of all parts for [batch, rows, columns, width]."""
        batch, rows, columns, width = input_shape
        self.local_perception = fan_out_depthwise(
            width, 3, padding="same", dtype=self.dtype_policy, name="local_perception"
        )
        self.local_perception.build(input_shape)
        for part in (self.attention_norm, self.attention, self.mlp_norm):
            part.build((batch, rows * columns, width))
        self.mlp.build(input_shape)

    def call(
        self,
        grid,
        positions: Callable = lambda scores: scores,
        training=None,
        intermediates: Intermediates = NOWHERE,
    ):
        """Runs the block.

        Args:
            grid: [batch, rows, columns, width].
            positions: Applied to the attention's scores, see `PairPositions`.
            training: Whether batch norms take the batch's statistics, and dropout is active.
            intermediates: Takes `local_perception`, a grid before the addition, and as tokens
                [batch, rows * columns, width] `attn` and `mlp` before theirs, `after_attn`, `out`.
        """
        if intermediates.wants("local_perception"):
            intermediates.record("local_perception", self.local_perception(grid))
        shape = ops.shape(grid)
        batch, rows, columns, width = shape
        grid = beside_identity(self.local_perception, grid)
        tokens = ops.reshape(grid, (batch, rows * columns, width))

        branch = self.attention(
            self.attention_norm(tokens),
            positions=positions,
            training=training,
            intermediates=intermediates,
        )
        branch = self.attention_out_dropout(branch, training=training)
        intermediates.record("attn", branch)
        tokens = tokens + self.attention_depth(branch, training=training)
        intermediates.record("after_attn", tokens)

        branch = self.mlp(ops.reshape(self.mlp_norm(tokens), shape), training=training)
        branch = ops.reshape(branch, (batch, rows * columns, width))
        intermediates.record("mlp", branch)
        tokens = tokens + self.mlp_depth(branch, training=training)
        intermediates.record("out", tokens)
        return ops.reshape(tokens, shape)

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "grid_size": self.grid_size,
            "reduction": self.reduction,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "stochastic_depth": self.stochastic_depth,
            "norm_epsilon": self.norm_epsilon,
            "activation": self.activation,
        }
        return {**super().get_config(), **config}
