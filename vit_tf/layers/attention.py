"""Multi-head attention with one fused projection."""

import math

import keras
from keras import ops

from vit_tf.layers.initialization import get_initializer
from vit_tf.layers.intermediates import NOWHERE, Intermediates
from vit_tf.layers.kernels import kernels_for
from vit_tf.layers.products import keeps_axes, linear

_KEPT_EPSILON = 1e-6  # of DynamicViT's masked softmax


def projection(
    features: int,
    parts: int,
    width: int,
    initialization: str = "vision_transformer",
    **kwargs,
) -> keras.layers.Dense:
    """A dense layer of `parts` fused projections, each initialised as if it stood alone.

    Separate Xavier-uniform kernels [width, features] draw from +-sqrt(6 / (width + features)). The
    fused kernel has `parts * features` outputs, so the scale makes up for its larger fan-out.

    Args:
        features: Outputs of one projection.
        parts: How many projections are fused.
        width: Inputs of the projection.
        initialization: How the kernel starts, see `layers.initialization`.
        **kwargs: Further arguments of `keras.layers.Dense`.
    """
    fused = (width + parts * features) / (width + features)
    initializer = get_initializer(initialization, "attention_kernel", fused=fused)
    return keras.layers.Dense(parts * features, kernel_initializer=initializer, **kwargs)


def check_heads(num_heads: int, width: int) -> None:
    """Raises a ValueError unless the number of heads divides the width."""
    if width % num_heads:
        raise ValueError(
            f"num_heads={num_heads} does not divide width={width}; choose a width that is a "
            f"multiple of {num_heads} or another number of heads."
        )


def attention_weights(scores):
    """Softmax, computed in at least float32 because half types lose small weights.

    Args:
        scores: [batch, heads, queries, keys], products of scaled queries with keys.

    Returns:
        [batch, heads, queries, keys] in the dtype of the scores, rows summing to one.
    """
    kernels = kernels_for(scores)
    if kernels is not None:
        return kernels.softmax(scores)
    wide = keras.backend.result_type(scores.dtype, "float32")
    return ops.cast(ops.softmax(ops.cast(scores, wide), axis=-1), scores.dtype)


def kept_attention_weights(scores, keep):
    """Softmax over kept tokens and the querying token itself (Rao et al. 2021, section 3.3).

    As in raoyongming/DynamicViT, the exponentials are multiplied by what is kept, so that gradients
    reach it, and each row gets a share of 1e-6 spread over all tokens.

    Args:
        scores: [batch, heads, tokens, tokens], products of scaled queries with keys.
        keep: [batch, tokens], 1 for tokens that are kept, 0 for the others.

    Returns:
        [batch, heads, queries, keys] in the dtype of the scores, computed in at least float32.
    """
    wide = keras.backend.result_type(scores.dtype, "float32")
    scores_wide = ops.cast(scores, wide)
    tokens = scores.shape[-1]
    keep = ops.cast(keep, wide)[:, None, None, :]
    attended = keep + (1 - keep) * ops.eye(tokens, dtype=wide)
    exponentials = ops.exp(scores_wide - ops.max(scores_wide, axis=-1, keepdims=True)) * attended
    total = ops.sum(exponentials, axis=-1, keepdims=True)
    weights = (exponentials + _KEPT_EPSILON / tokens) / (total + _KEPT_EPSILON)
    return ops.cast(weights, scores.dtype)


@ops.custom_gradient
def _attention_weights_in_xla(scores):
    """`attention_weights`, of which the backward pass keeps the scores and one number a row.

    Of a plain softmax XLA keeps the scores, and maxima and sums in float32.
    """
    wide = keras.backend.result_type(scores.dtype, "float32")
    normalizer = ops.logsumexp(ops.cast(scores, wide), axis=-1, keepdims=True)
    weights = ops.exp(ops.cast(scores, wide) - normalizer)

    def gradient(*upstreams, upstream=None):
        (upstream,) = upstreams or (upstream,)
        products = weights * ops.cast(upstream, wide)
        total = ops.sum(products, axis=-1, keepdims=True)
        return ops.cast(products - weights * total, scores.dtype)

    return ops.cast(weights, scores.dtype), gradient


@keras.saving.register_keras_serializable(package="vit_tf")
class MultiHeadSelfAttention(keras.layers.Layer):
    """Self-attention over tokens (Vaswani et al. 2017); input and output [batch, tokens, width].

    Query, key and value come from one dense layer; its 3 * width outputs are ordered (query, key,
    value), each split into heads of width / num_heads.

    Args:
        num_heads: Number of heads; must divide the width of the input.
        attention_dropout: Rate of dropout on the attention weights.
        initialization: How the kernels start, see `layers.initialization`.
        qkv_bias: Whether query, key and value have biases; the output's projection always has one.

    Raises:
        ValueError: At build, if `num_heads` does not divide the width.
    """

    def __init__(
        self,
        num_heads: int,
        attention_dropout: float = 0.0,
        initialization: str = "vision_transformer",
        qkv_bias: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.attention_dropout = attention_dropout
        self.initialization = initialization
        self.qkv_bias = qkv_bias

    def build(self, input_shape):
        """Creates kernels [width, 3 * width] and [width, width] and their biases."""
        width = input_shape[-1]
        check_heads(self.num_heads, width)
        self.query_key_value = projection(
            width,
            3,
            width,
            self.initialization,
            use_bias=self.qkv_bias,
            dtype=self.dtype_policy,
            name="qkv",
        )
        self.query_key_value.build(input_shape)
        self.dropout = keras.layers.Dropout(
            self.attention_dropout, dtype=self.dtype_policy, name="dropout"
        )
        self.out = projection(
            width, 1, width, self.initialization, dtype=self.dtype_policy, name="out"
        )
        self.out.build(input_shape)

    def call(self, tokens, training=None, intermediates: Intermediates = NOWHERE, keep=None):
        """Attends; records `attn_weights` [batch, heads, queries, keys] where it is asked for.

        Args:
            tokens: [batch, tokens, width].
            training: Whether dropout is active.
            intermediates: Collector of named tensors.
            keep: [batch, tokens], 1 for tokens that others attend to; None for all.
        """
        attend = self._attend_by_einsum if keeps_axes() else self._attend_by_matmul
        return attend(tokens, training, intermediates, keep)

    def _attend_by_matmul(self, tokens, training, intermediates, keep):
        batch, length, width = ops.shape(tokens)
        head_dim = width // self.num_heads
        fused = linear(self.query_key_value, ops.reshape(tokens, (-1, width)))
        fused = ops.reshape(fused, (batch, length, 3, self.num_heads, head_dim))
        # Parts of the first axis are no copies, and their gradients are stacked, not padded.
        query, key, value = ops.unstack(ops.transpose(fused, (2, 0, 3, 1, 4)), 3, axis=0)
        query = query * (1 / math.sqrt(head_dim))
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
        weights = (
            attention_weights(scores) if keep is None else kept_attention_weights(scores, keep)
        )
        intermediates.record("attn_weights", weights)
        weights = self.dropout(weights, training=training)
        attended = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        outputs = linear(self.out, ops.reshape(attended, (-1, width)))
        return ops.reshape(outputs, (batch, length, width))

    def _attend_by_einsum(self, tokens, training, intermediates, keep):
        *outer, width = ops.shape(tokens)
        heads, head_dim = self.num_heads, width // self.num_heads
        fused = ops.reshape(linear(self.query_key_value, tokens), (*outer, 3, heads, head_dim))
        query, key, value = ops.unstack(fused, 3, axis=-3)
        query = query * (1 / math.sqrt(head_dim))
        scores = ops.einsum("...qhd,...khd->...hqk", query, key)
        if keep is None:
            weights = _attention_weights_in_xla(scores)
        else:
            weights = kept_attention_weights(scores, keep)
        intermediates.record("attn_weights", weights)
        weights = self.dropout(weights, training=training)
        attended = ops.einsum("...hqk,...khd->...qhd", weights, value)
        return linear(self.out, ops.reshape(attended, (*outer, width)))

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {
            "num_heads": self.num_heads,
            "attention_dropout": self.attention_dropout,
            "initialization": self.initialization,
            "qkv_bias": self.qkv_bias,
        }
        return {**super().get_config(), **config}
