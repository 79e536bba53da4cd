"""Dot-product attention of queries, keys and values that are projected already."""

from collections.abc import Callable

from keras import ops

from vit_tf.layers.attention import attention_weights
from vit_tf.layers.intermediates import NOWHERE, Intermediates


def attend(
    query,
    key,
    value,
    num_heads: int,
    scale: float,
    positions: Callable = lambda scores: scores,
    dropout: Callable = lambda weights: weights,
    intermediates: Intermediates = NOWHERE,
):
    """Mixes values by the softmax of query-key products, in every head by itself.

    Args:
        query: [batch, queries, width].
        key: [batch, keys, width].
        value: [batch, keys, width].
        num_heads: Number of equal parts of the width.
        scale: Factor of the products.
        positions: Applied to the scaled products [batch, heads, queries, keys].
        dropout: Applied to the attention weights.
        intermediates: Takes `attn_weights` [batch, heads, queries, keys], before the dropout.

    Returns:
        [batch, queries, width], the heads side by side.
    """
    query, key, value = (_by_head(part, num_heads) for part in (query, key, value))
    scores = ops.einsum("bqhd,bkhd->bhqk", query * scale, key)
    weights = attention_weights(positions(scores))
    intermediates.record("attn_weights", weights)
    attended = ops.einsum("bhqk,bkhd->bqhd", dropout(weights), value)
    batch, queries, heads, head_dim = ops.shape(attended)
    return ops.reshape(attended, (batch, queries, heads * head_dim))


def _by_head(tokens, num_heads):
    batch, length, width = ops.shape(tokens)
    return ops.reshape(tokens, (batch, length, num_heads, width // num_heads))
