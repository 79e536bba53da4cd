"""The inverted residual feed-forward network: an MLP with a convolution over its hidden layer."""

import keras

from vit_tf.layers.activations import get_activation
from vit_tf.layers.batch_norm import batch_norm
from vit_tf.layers.fan_out_conv import beside_identity, fan_out_conv, fan_out_depthwise


@keras.saving.register_keras_serializable(package="vit_tf")
class InvertedResidualMLP(keras.layers.Layer):
    """IRFFN (Guo et al. 2021, "CMT", section 3.3); input and output [batch, rows, columns, width].

    A 1x1 convolution to the hidden size, activation, batch norm; a depth-wise 3x3 convolution
    beside the identity, activation, batch norm; a 1x1 convolution back, batch norm. The activation
    comes before the norm, as in the reference.

    Args:
        mlp_dim: Hidden channels.
        activation: Name of the activation, see `layers.activations`.
        dropout: Rate after the first norm and at the end.
    """

    def __init__(self, mlp_dim: int, activation: str = "gelu", dropout: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.mlp_dim = mlp_dim
        self.activation = activation
        self.dropout = dropout
        self._activate = get_activation(activation)

    def build(self, input_shape):
        """Creates the three convolutions and the norm behind each."""
        width, policy = input_shape[-1], self.dtype_policy
        self.conv_in = fan_out_conv(self.mlp_dim, 1, dtype=policy, name="conv_in")
        self.depthwise = fan_out_depthwise(
            self.mlp_dim, 3, padding="same", dtype=policy, name="depthwise"
        )
        self.conv_out = fan_out_conv(width, 1, dtype=policy, name="conv_out")
        self.norm_in, self.depthwise_norm, self.norm_out = (
            batch_norm(dtype=policy, name=name)
            for name in ("norm_in", "depthwise_norm", "norm_out")
        )
        self.depthwise_norm.precedes(self.conv_out)
        self.norm_out.follows(self.conv_out)
        hidden = (None, None, None, self.mlp_dim)
        self.conv_in.build((None, None, None, width))
        for layer in (self.norm_in, self.depthwise, self.depthwise_norm, self.conv_out):
            layer.build(hidden)
        self.norm_out.build((None, None, None, width))
        self.dropout_in = keras.layers.Dropout(self.dropout, dtype=policy)
        self.dropout_out = keras.layers.Dropout(self.dropout, dtype=policy)

    def call(self, grid, training=None):
        """Maps [batch, rows, columns, width] to the same shape."""
        hidden = self.norm_in(self._activate(self.conv_in(grid)), training=training)
        hidden = self.dropout_in(hidden, training=training)
        hidden = self._activate(beside_identity(self.depthwise, hidden))
        hidden = self.depthwise_norm(hidden, training=training)
        outputs = self.norm_out(self.conv_out(hidden), training=training)
        return self.dropout_out(outputs, training=training)

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {
            "mlp_dim": self.mlp_dim,
            "activation": self.activation,
            "dropout": self.dropout,
        }
        return {**super().get_config(), **config}
