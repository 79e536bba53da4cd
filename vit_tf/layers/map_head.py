"""Multi-head attention pooling (MAP)."""

import math

import keras
from keras import ops

from vit_tf.layers.attention import attention_weights, check_heads, projection
from vit_tf.layers.intermediates import NOWHERE, Intermediates
from vit_tf.layers.kernels import LayerNorm
from vit_tf.layers.mlp import MLP
from vit_tf.layers.products import linear, rows


@keras.saving.register_keras_serializable(package="vit_tf")
class MAPHead(keras.layers.Layer):
    """Pools tokens by letting a learned probe attend to them (Zhai et al. 2021, Scaling ViT).

    Input [batch, tokens, width], output [batch, width]. As in big_vision's `MAPHead`: y is the
    attention of the probe, the result y + mlp(norm(y)); the probe itself is not added.

    Args:
        num_heads: Number of heads; must divide the width.
        mlp_dim: Size of the MLP's hidden layer.
        norm_epsilon: Epsilon of the LayerNorm.
        activation: Name of the MLP's activation.

    Raises:
        ValueError: At build, if `num_heads` does not divide the width.
    """

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        norm_epsilon: float = 1e-6,
        activation: str = "gelu_tanh",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.norm_epsilon = norm_epsilon
        self.activation = activation

    def build(self, input_shape):
        """Creates the probe [1, 1, width] and the weights of attention, norm and MLP."""
        batch, _, width = input_shape
        check_heads(self.num_heads, width)
        policy = self.dtype_policy
        self.probe = self.add_weight(
            name="probe", shape=(1, 1, width), initializer="glorot_uniform"
        )
        self.query = projection(width, 1, width, dtype=policy, name="query")
        self.query.build((1, 1, width))
        self.key_value = projection(width, 2, width, dtype=policy, name="key_value")
        self.key_value.build(input_shape)
        self.out = projection(width, 1, width, dtype=policy, name="out")
        self.out.build((batch, width))
        self.norm = LayerNorm(epsilon=self.norm_epsilon, dtype=policy, name="norm")
        self.norm.build((batch, width))
        self.mlp = MLP(self.mlp_dim, self.activation, dtype=policy, name="mlp")
        self.mlp.build((batch, width))

    def call(self, tokens, intermediates: Intermediates = NOWHERE):
        """Pools; records `attn_weights` [batch, heads, 1, tokens] and `attn` [batch, 1, width]."""
        batch, length, width = ops.shape(tokens)
        heads, head_dim = self.num_heads, width // self.num_heads
        query = self.query(self.probe) * (1 / math.sqrt(head_dim))
        query = ops.reshape(query, (1, heads, 1, head_dim))  # the same for every example
        by_head = (batch, length, heads, head_dim)
        fused = ops.reshape(linear(self.key_value, rows(tokens)), (batch, length, 2 * width))
        key, value = ops.split(fused, 2, axis=-1)
        transposed_key = ops.transpose(ops.reshape(key, by_head), (0, 2, 3, 1))
        value = ops.transpose(ops.reshape(value, by_head), (0, 2, 1, 3))
        weights = attention_weights(ops.matmul(query, transposed_key))  # [batch, heads, 1, tokens]
        intermediates.record("attn_weights", weights)
        # With a single query the heads are already in order: no transpose back.
        attended = self.out(ops.reshape(ops.matmul(weights, value), (batch, width)))
        intermediates.record("attn", attended[:, None])
        return attended + self.mlp(self.norm(attended))

    def compute_output_shape(self, input_shape):
        """Returns (batch, width)."""
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "norm_epsilon": self.norm_epsilon,
            "activation": self.activation,
        }
        return {**super().get_config(), **config}
