"""The pre-norm transformer encoder block."""

import keras

from vit_tf.layers.attention import MultiHeadSelfAttention
from vit_tf.layers.intermediates import NOWHERE, Intermediates
from vit_tf.layers.kernels import LayerNorm
from vit_tf.layers.layer_scale import LayerScale
from vit_tf.layers.mlp import MLP
from vit_tf.layers.stochastic_depth import StochasticDepth


@keras.saving.register_keras_serializable(package="vit_tf")
class EncoderBlock(keras.layers.Layer):
    """x + attention(norm(x)), then x + mlp(norm(x)); input and output [batch, tokens, width].

    Dosovitskiy et al. 2020, eq. 2 and 3, with the optional stochastic depth and LayerScale that
    later recipes (AugReg, DeiT-III) put on both branches.

    Args:
        num_heads: Number of attention heads.
        mlp_dim: Size of the MLP's hidden layer.
        dropout: Rate after the attention's projection and inside the MLP.
        attention_dropout: Rate on the attention weights.
        stochastic_depth: Rate of dropping each branch, per example.
        layer_scale_init: Initial LayerScale factors; None for no LayerScale.
        norm_epsilon: Epsilon of both LayerNorms.
        activation: Name of the MLP's activation.
        initialization: How the weights start, see `layers.initialization`.
        qkv_bias: Whether query, key and value have biases.

    Attributes:
        intermediate_names: What `call` can record, in the order of computation.
    """

    intermediate_names = ("attn_weights", "attn", "after_attn", "mlp", "out")

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        layer_scale_init: float | None = None,
        norm_epsilon: float = 1e-6,
        activation: str = "gelu_tanh",
        initialization: str = "vision_transformer",
        qkv_bias: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.stochastic_depth = stochastic_depth
        self.layer_scale_init = layer_scale_init
        self.norm_epsilon = norm_epsilon
        self.activation = activation
        self.initialization = initialization
        self.qkv_bias = qkv_bias

        policy = self.dtype_policy
        self.attention_norm = LayerNorm(epsilon=norm_epsilon, dtype=policy, name="attention_norm")
        self.attention = self.create_attention()
        self.attention_out_dropout = keras.layers.Dropout(dropout, dtype=policy)
        self.attention_depth = StochasticDepth(stochastic_depth, dtype=policy)
        self.mlp_norm = LayerNorm(epsilon=norm_epsilon, dtype=policy, name="mlp_norm")
        self.mlp = MLP(mlp_dim, activation, dropout, initialization, dtype=policy, name="mlp")
        self.mlp_depth = StochasticDepth(stochastic_depth, dtype=policy)
        self.attention_scale = self.mlp_scale = None
        if layer_scale_init is not None:
            self.attention_scale = LayerScale(
                layer_scale_init, dtype=policy, name="attention_scale"
            )
            self.mlp_scale = LayerScale(layer_scale_init, dtype=policy, name="mlp_scale")

    def create_attention(self) -> keras.layers.Layer:
        """Creates the layer `attention`, of tokens to as many tokens."""
        return MultiHeadSelfAttention(
            self.num_heads,
            self.attention_dropout,
            self.initialization,
            self.qkv_bias,
            dtype=self.dtype_policy,
            name="attention",
        )

    def build(self, input_shape):
        """Creates the weights of all parts for [batch, tokens, width]."""
        for part in (self.attention_norm, self.attention, self.mlp_norm, self.mlp):
            part.build(input_shape)
        if self.attention_scale is not None:
            self.attention_scale.build(input_shape)
            self.mlp_scale.build(input_shape)

    def call(self, tokens, training=None, intermediates: Intermediates = NOWHERE, keep=None):
        """Runs the block; records `attn`, `after_attn`, `mlp` and `out`, all of the input's shape.

        `attn` and `mlp` are the branches before LayerScale and the residual additions. `keep`
        [batch, tokens], where it is given, is 1 for tokens that others attend to, else 0.
        """
        masked = {} if keep is None else {"keep": keep}
        tokens = tokens + self.attend(
            self.attention_norm(tokens), training, intermediates, **masked
        )
        intermediates.record("after_attn", tokens)
        tokens = tokens + self.transform(self.mlp_norm(tokens), training, intermediates)
        intermediates.record("out", tokens)
        return tokens

    def attend(self, tokens, training, intermediates, **masked):
        """The branch of the attention, as it is added to the residual stream."""
        branch = self.attention(tokens, training=training, intermediates=intermediates, **masked)
        branch = self.attention_out_dropout(branch, training=training)
        intermediates.record("attn", branch)
        if self.attention_scale is not None:
            branch = self.attention_scale(branch)
        return self.attention_depth(branch, training=training)

    def transform(self, tokens, training, intermediates):
        """The branch of the MLP, as it is added to the residual stream."""
        branch = self.mlp(tokens, training=training)
        intermediates.record("mlp", branch)
        if self.mlp_scale is not None:
            branch = self.mlp_scale(branch)
        return self.mlp_depth(branch, training=training)

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "dropout": self.dropout,
            "attention_dropout": self.attention_dropout,
            "stochastic_depth": self.stochastic_depth,
            "layer_scale_init": self.layer_scale_init,
            "norm_epsilon": self.norm_epsilon,
            "activation": self.activation,
            "initialization": self.initialization,
            "qkv_bias": self.qkv_bias,
        }
        return {**super().get_config(), **config}
