"""Self-attention and attention pooling against their definitions."""

import keras
import numpy as np
import pytest

from vit_tf.layers import Intermediates, MAPHead, MultiHeadSelfAttention

WIDTH, HEADS = 12, 3


def softmax(scores):
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).normal(size=(2, 5, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def attention():
    layer = MultiHeadSelfAttention(HEADS)
    layer.build((None, 5, WIDTH))
    random = np.random.default_rng(1)
    layer.set_weights([random.normal(size=w.shape) for w in layer.weights])
    return layer


def test_attention_follows_its_definition_head_by_head(attention, tokens):
    kernel, bias, out_kernel, out_bias = map(np.asarray, attention.weights)
    query, key, value = np.split(tokens @ kernel + bias, 3, axis=-1)
    heads = []
    for head in np.split(np.arange(WIDTH), HEADS):
        scores = query[..., head] @ key[..., head].swapaxes(1, 2) / np.sqrt(WIDTH / HEADS)
        heads.append(softmax(scores) @ value[..., head])
    expected = np.concatenate(heads, axis=-1) @ out_kernel + out_bias
    np.testing.assert_allclose(attention(tokens), expected, atol=2e-5)


def test_weights_are_kept_only_where_they_are_asked_for(attention, tokens):
    asked, not_asked = Intermediates(["block07/attn_weights"]), Intermediates([])
    attention(tokens, intermediates=asked.scope("block07"))
    attention(tokens, intermediates=not_asked.scope("block07"))
    assert asked.tensors["block07/attn_weights"].shape == (2, HEADS, 5, 5)
    assert not_asked.tensors == {}


def test_fused_kernel_starts_like_three_separate_xavier_kernels():
    layer = MultiHeadSelfAttention(4)
    layer.build((None, 5, 256))
    bound = np.sqrt(6 / (256 + 256))
    kernel = np.asarray(layer.query_key_value.kernel)
    assert bound * 0.999 < np.abs(kernel).max() <= bound
    np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.01)


def test_pooling_head_starts_xavier_too():
    head = MAPHead(4, 8)
    head.build((None, 5, 256))
    bound = np.sqrt(6 / (256 + 256))
    for dense in (head.query, head.key_value, head.out):
        assert bound * 0.999 < np.abs(np.asarray(dense.kernel)).max() <= bound
    assert np.abs(np.asarray(head.probe)).max() <= np.sqrt(6 / (1 + 256))


def test_softmax_is_taken_in_float32_under_mixed_precision():
    """In bfloat16 the 300 equal weights of one head would sum to 1.0 only within 1e-2."""
    layer = MultiHeadSelfAttention(1, dtype="mixed_bfloat16")
    layer.build((None, 300, 4))
    seen = []
    original = keras.ops.softmax

    def spy(scores, axis):
        seen.append(keras.backend.standardize_dtype(scores.dtype))
        return original(scores, axis=axis)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.ops, "softmax", spy)
        outputs = layer(np.zeros((1, 300, 4), np.float32))
    assert seen == ["float32"]
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"


@pytest.mark.parametrize("layer", [MultiHeadSelfAttention(5), MAPHead(5, 8)])
def test_number_of_heads_must_divide_the_width(layer):
    with pytest.raises(ValueError, match="num_heads=5 does not divide width=12"):
        layer.build((None, 5, 12))


def test_attention_dropout_acts_in_training_only(tokens):
    layer = MultiHeadSelfAttention(HEADS, attention_dropout=0.5)
    np.testing.assert_array_equal(layer(tokens), layer(tokens))
    assert not np.allclose(layer(tokens, training=True), layer(tokens))
