"""Attention of every family that has it; the others are refused by name."""

import keras
import numpy as np
import pytest

from vit_tf.export.attention import attention, check_attention
from vit_tf.models import create_model

SMALL = {"image_size": 16, "num_classes": 3}
VIT = {**SMALL, "patch_size": 4, "width": 8, "depth": 3, "num_heads": 2, "mlp_dim": 8}


@pytest.mark.parametrize(
    ("family", "changes", "tokens", "readers"),
    [
        ("vit", {"pool": "token"}, 17, slice(0, 1)),
        ("vit", {"pool": "gap"}, 16, slice(0, None)),
        ("vit", {"pool": "map", "num_registers": 2}, 18, slice(2, None)),
        ("vit", {"pool": "token", "num_registers": 4}, 21, slice(0, 1)),
        ("deit_distilled", {"num_registers": 1}, 19, slice(0, 2)),
        ("flexivit", {"pool": "token"}, 17, slice(0, 1)),
    ],
)
def test_the_rollout_is_of_the_tokens_that_the_model_reads(family, changes, tokens, readers):
    keras.utils.set_random_seed(1)
    model = create_model(family, **VIT, **changes)
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    outputs = attention(model, images)
    assert outputs["maps"].shape == (2, 3, 2, tokens, tokens)
    rollout = np.eye(tokens)
    for layer in np.moveaxis(outputs["maps"].numpy().astype(np.float64), 1, 0):
        rollout = (layer.mean(axis=1) + np.eye(tokens)) / 2 @ rollout
    expected = rollout[:, readers, tokens - 16 :].mean(axis=1)
    np.testing.assert_allclose(outputs["rollout"], expected.reshape(2, 4, 4), rtol=1e-4)
    assert set(attention(model, images, ["rollout"])) == {"rollout"}


def test_a_model_without_attention_is_named():
    mixer = create_model(
        "mixer", **SMALL, patch_size=8, width=8, depth=1, tokens_mlp_dim=4, channels_mlp_dim=4
    )
    message = "the model Mixer has no attention between tokens, so rollout cannot be served"
    with pytest.raises(ValueError, match=message):
        check_attention(mixer, ["rollout"])
    check_attention(mixer, [])
    with pytest.raises(ValueError, match="has no attention"):
        check_attention(keras.Sequential(), ["maps"])


def test_a_misspelt_kind_is_answered_with_the_closest():
    model = create_model("vit", **VIT)
    with pytest.raises(ValueError, match="'rolout' is unknown.* Did you mean 'rollout'"):
        check_attention(model, ["rolout"])
