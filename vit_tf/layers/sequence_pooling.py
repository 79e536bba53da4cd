"""Sequence pooling: a mean of tokens whose weights are learned."""

import keras
from keras import ops

from vit_tf.layers.attention import attention_weights
from vit_tf.layers.initialization import get_initializer
from vit_tf.layers.intermediates import NOWHERE, Intermediates


@keras.saving.register_keras_serializable(package="vit_tf")
class SequencePooling(keras.layers.Layer):
    """Weights tokens by a softmax of their scores and sums them (Hassani et al. 2021, section 3.2).

    A dense layer gives every token a score. Input [batch, tokens, width], output [batch, width].

    Args:
        initialization: How the kernel starts, see `layers.initialization`.
    """

    def __init__(self, initialization: str = "compact_transformers", **kwargs):
        super().__init__(**kwargs)
        self.initialization = initialization
        self.score = keras.layers.Dense(
            1,
            kernel_initializer=get_initializer(initialization, "mlp_kernel"),
            dtype=self.dtype_policy,
            name="score",
        )

    def build(self, input_shape):
        """Creates the kernel [width, 1] and the bias [1]."""
        self.score.build(input_shape)

    def call(self, tokens, intermediates: Intermediates = NOWHERE):
        """Pools; records `pool_weights` [batch, tokens, 1], which sum to one."""
        scores = ops.transpose(self.score(tokens), (0, 2, 1))
        weights = attention_weights(scores)  # [batch, 1, tokens]
        intermediates.record("pool_weights", ops.transpose(weights, (0, 2, 1)))
        return ops.squeeze(ops.matmul(weights, tokens), axis=1)

    def compute_output_shape(self, input_shape):
        """Returns (batch, width)."""
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "initialization": self.initialization}
