"""Attention rollout against stored values, and as a map of the image for every layout of tokens."""

import json

import numpy as np
import pytest

from vit_tf.analysis.attention_rollout import attention_rollout, rollout_map


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden" / "inspection" / "attention_rollout"
    tolerance = json.loads((folder / "meta.json").read_text())["tolerance"]
    with np.load(folder / "io.npz") as stored:
        return {**stored}, tolerance


def random_attention(layers, tokens, heads=2, batch=3, seed=0):
    weights = np.random.default_rng(seed).random((layers, batch, heads, tokens, tokens))
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("fuse_heads", ["mean", "max", "min"])
def test_rollouts_of_every_layer_are_the_stored_ones(golden, fuse_heads):
    stored, tolerance = golden
    found = attention_rollout(stored["attention"], fuse_heads)
    np.testing.assert_allclose(np.stack(found), stored[f"rollout_{fuse_heads}"], **tolerance)


def test_the_class_tokens_row_is_the_stored_map(golden):
    stored, tolerance = golden
    last = attention_rollout(stored["attention"])[-1]
    found = rollout_map(last, (4, 4), class_tokens=1, before_patches=1)
    np.testing.assert_allclose(found, stored["class_token_map_mean"], **tolerance)


@pytest.mark.parametrize("depth", [1, 2, 24])
def test_rows_sum_to_one_at_any_depth(depth):
    rollouts = attention_rollout(random_attention(depth, tokens=5))
    assert len(rollouts) == depth
    np.testing.assert_allclose(np.sum(rollouts, axis=-1), 1, atol=1e-5)


def test_one_layer_is_half_attention_and_half_identity():
    (weights,) = random_attention(1, tokens=4)
    (found,) = attention_rollout([weights])
    np.testing.assert_allclose(found, (weights.mean(axis=1) + np.eye(4)) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("class_tokens", "before_patches", "rows"),
    [
        (1, 1, slice(0, 1)),  # class token
        (2, 2, slice(0, 2)),  # class and distillation token
        (1, 4, slice(0, 1)),  # class token and registers
        (0, 3, slice(3, None)),  # registers alone: the patches are averaged
        (0, 0, slice(0, None)),  # patches alone
    ],
)
def test_maps_take_the_rows_that_the_model_reads(class_tokens, before_patches, rows):
    rollout = random_attention(1, tokens=before_patches + 6)[0][:, 0]
    found = rollout_map(rollout, (2, 3), class_tokens, before_patches)
    assert found.shape == (3, 2, 3)
    expected = rollout[:, rows, before_patches:].mean(axis=1)
    np.testing.assert_allclose(np.reshape(found, (3, 6)), expected, rtol=1e-6)


def test_what_cannot_be_rolled_out_is_named():
    with pytest.raises(ValueError, match="one of 'mean', 'max', 'min', got 'median'"):
        attention_rollout(random_attention(1, tokens=4), "median")
    with pytest.raises(ValueError, match="attention of no layer"):
        attention_rollout([])
    with pytest.raises(ValueError, match="over 7 tokens cannot be a map of 2x3 patches behind 0"):
        rollout_map(np.zeros((1, 7, 7), np.float32), (2, 3))
