"""The two-layer perceptron of a transformer block."""

import keras
from keras import ops

from vit_tf.layers.activations import get_activation
from vit_tf.layers.initialization import get_initializer
from vit_tf.layers.products import linear, rows


@keras.saving.register_keras_serializable(package="vit_tf")
class MLP(keras.layers.Layer):
    """Dense, activation, dropout, dense, dropout; input and output [..., width].

    Args:
        mlp_dim: Size of the hidden layer.
        activation: Name of the activation, see `layers.activations`.
        dropout: Rate after the activation and after the second dense layer.
        initialization: How kernels and biases start, see `layers.initialization`.
    """

    def __init__(
        self,
        mlp_dim: int,
        activation: str = "gelu_tanh",
        dropout: float = 0.0,
        initialization: str = "vision_transformer",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.mlp_dim = mlp_dim
        self.activation = activation
        self.dropout = dropout
        self.initialization = initialization
        self._activate = get_activation(activation)

    def build(self, input_shape):
        """Creates kernels [width, mlp_dim] and [mlp_dim, width] and their biases."""
        width = input_shape[-1]
        self.dense_in = self._dense(self.mlp_dim, name="dense_in")
        self.dense_in.build(input_shape)
        self.dense_out = self._dense(width, name="dense_out")
        self.dense_out.build((*input_shape[:-1], self.mlp_dim))
        self.dropout_in = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy)
        self.dropout_out = keras.layers.Dropout(self.dropout, dtype=self.dtype_policy)

    def _dense(self, units, name):
        return keras.layers.Dense(
            units,
            kernel_initializer=get_initializer(self.initialization, "mlp_kernel"),
            bias_initializer=get_initializer(self.initialization, "mlp_bias"),
            dtype=self.dtype_policy,
            name=name,
        )

    def call(self, inputs, training=None):
        """Maps [..., width] to [..., width]."""
        hidden = self._activate(linear(self.dense_in, rows(inputs)))
        hidden = self.dropout_in(hidden, training=training)
        outputs = self.dropout_out(linear(self.dense_out, hidden), training=training)
        return ops.reshape(outputs, ops.shape(inputs))

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {
            "mlp_dim": self.mlp_dim,
            "activation": self.activation,
            "dropout": self.dropout,
            "initialization": self.initialization,
        }
        return {**super().get_config(), **config}
