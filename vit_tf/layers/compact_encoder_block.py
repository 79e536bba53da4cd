"""The encoder block of Compact Transformers."""

import keras

from vit_tf.layers.encoder_block import EncoderBlock
from vit_tf.layers.intermediates import NOWHERE, Intermediates


@keras.saving.register_keras_serializable(package="vit_tf")
class CompactEncoderBlock(EncoderBlock):
    """x = norm1(x + attention(pre_norm(x))), then x + mlp(x); all of [batch, tokens, width].

    SHI-Labs/Compact-Transformers, `utils/transformers.py`: the second norm takes the place of the
    residual stream instead of standing inside the MLP's branch, and query, key and value have no
    biases. The weights have the names of `EncoderBlock`: `mlp_norm` is the reference's `norm1`,
    `attention_norm` its `pre_norm`.

    Args:
        *args: Arguments of `EncoderBlock`.
        qkv_bias: Whether query, key and value have biases.
        **kwargs: Arguments of `EncoderBlock`.
    """

    intermediate_names = ("attn_weights", "attn", "after_norm1", "mlp", "out")

    def __init__(self, *args, qkv_bias: bool = False, **kwargs):
        super().__init__(*args, qkv_bias=qkv_bias, **kwargs)

    def call(self, tokens, training=None, intermediates: Intermediates = NOWHERE):
        """Runs the block; records `attn`, `after_norm1`, `mlp` and `out`, all as the input."""
        tokens = tokens + self.attend(self.attention_norm(tokens), training, intermediates)
        tokens = self.mlp_norm(tokens)
        intermediates.record("after_norm1", tokens)
        tokens = tokens + self.transform(tokens, training, intermediates)
        intermediates.record("out", tokens)
        return tokens
