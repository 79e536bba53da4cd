"""The block of MLP-Mixer: one MLP over tokens, one over channels."""

import keras
from keras import ops

from vit_tf.layers.intermediates import NOWHERE, Intermediates
from vit_tf.layers.kernels import LayerNorm
from vit_tf.layers.mlp import MLP
from vit_tf.layers.stochastic_depth import StochasticDepth


@keras.saving.register_keras_serializable(package="vit_tf")
class MixerBlock(keras.layers.Layer):
    """x + token_mixing(norm(x)), then x + channel_mixing(norm(x)); [batch, tokens, width].

    Tolstikhin et al. 2021, eq. 1. Token mixing is an MLP along the sequence, the same for every
    channel, so the block is bound to the number of tokens that it is built for.

    Args:
        tokens_mlp_dim: Hidden size of the MLP over tokens.
        channels_mlp_dim: Hidden size of the MLP over channels.
        dropout: Rate inside both MLPs.
        stochastic_depth: Rate of dropping each branch, per example.
        norm_epsilon: Epsilon of both LayerNorms.
        activation: Name of both MLPs' activation.
    """

    def __init__(
        self,
        tokens_mlp_dim: int,
        channels_mlp_dim: int,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        norm_epsilon: float = 1e-6,
        activation: str = "gelu_tanh",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.tokens_mlp_dim = tokens_mlp_dim
        self.channels_mlp_dim = channels_mlp_dim
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth
        self.norm_epsilon = norm_epsilon
        self.activation = activation

        self.token_mixing_norm = self._norm("token_mixing_norm")
        self.token_mixing = self._mlp(tokens_mlp_dim, "token_mixing")
        self.token_mixing_depth = StochasticDepth(stochastic_depth, dtype=self.dtype_policy)
        self.channel_mixing_norm = self._norm("channel_mixing_norm")
        self.channel_mixing = self._mlp(channels_mlp_dim, "channel_mixing")
        self.channel_mixing_depth = StochasticDepth(stochastic_depth, dtype=self.dtype_policy)

    def _norm(self, name):
        return LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype_policy, name=name)

    def _mlp(self, mlp_dim, name):
        return MLP(
            mlp_dim, self.activation, self.dropout, "mixer", dtype=self.dtype_policy, name=name
        )

    def build(self, input_shape):
        """Creates the weights of all parts for [batch, tokens, width]."""
        batch, tokens, width = input_shape
        self.token_mixing_norm.build(input_shape)
        self.token_mixing.build((batch, width, tokens))
        self.channel_mixing_norm.build(input_shape)
        self.channel_mixing.build(input_shape)

    def call(self, tokens, training=None, intermediates: Intermediates = NOWHERE):
        """Runs the block.

        Records the branches `token_mixing` and `channel_mixing` before they are added, and the
        sums `after_token_mixing` and `out`, all of the input's shape.
        """
        transposed = ops.transpose(self.token_mixing_norm(tokens), (0, 2, 1))
        branch = self.token_mixing(transposed, training=training)  # [batch, width, tokens]
        branch = ops.transpose(branch, (0, 2, 1))
        intermediates.record("token_mixing", branch)
        tokens = tokens + self.token_mixing_depth(branch, training=training)
        intermediates.record("after_token_mixing", tokens)

        branch = self.channel_mixing(self.channel_mixing_norm(tokens), training=training)
        intermediates.record("channel_mixing", branch)
        tokens = tokens + self.channel_mixing_depth(branch, training=training)
        intermediates.record("out", tokens)
        return tokens

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {
            "tokens_mlp_dim": self.tokens_mlp_dim,
            "channels_mlp_dim": self.channels_mlp_dim,
            "dropout": self.dropout,
            "stochastic_depth": self.stochastic_depth,
            "norm_epsilon": self.norm_epsilon,
            "activation": self.activation,
        }
        return {**super().get_config(), **config}
