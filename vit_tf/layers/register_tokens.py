"""Registers: learned tokens that give attention a place to put global information."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="vit_tf")
class RegisterTokens(keras.layers.Layer):
    """Inserts learned tokens without position (Darcet et al. 2023, "... Need Registers").

    Input [batch, tokens, width], output [batch, tokens + num_registers, width]: the first `offset`
    tokens stay in front (the class token), then the registers, then the rest. The initial scale is
    that of the DINOv2 implementation.

    Args:
        num_registers: How many tokens to insert.
        offset: How many tokens of the input stay in front of them.
    """

    def __init__(self, num_registers: int, offset: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.num_registers = num_registers
        self.offset = offset

    def build(self, input_shape):
        """Creates the registers [1, num_registers, width]."""
        self.registers = self.add_weight(
            name="registers",
            shape=(1, self.num_registers, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=1e-6),
        )

    def call(self, tokens):
        """Inserts the registers into [batch, tokens, width]."""
        shape = (ops.shape(tokens)[0], self.num_registers, tokens.shape[-1])
        registers = ops.broadcast_to(self.registers, shape)
        if self.offset == 0:
            return ops.concatenate([registers, tokens], axis=1)
        parts = [tokens[:, : self.offset], registers, tokens[:, self.offset :]]
        return ops.concatenate(parts, axis=1)

    def compute_output_shape(self, input_shape):
        """Returns (batch, tokens + num_registers, width)."""
        batch, tokens, width = input_shape
        return (batch, tokens + self.num_registers, width)

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {"num_registers": self.num_registers, "offset": self.offset}
        return {**super().get_config(), **config}
