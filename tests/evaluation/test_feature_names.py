"""What a feature's name means, for every family."""

import numpy as np
import pytest
import tensorflow as tf

from vit_tf.evaluation.feature_names import (
    TokenLayout,
    check_features,
    make_feature,
    parts_of,
    tensors_of,
)
from vit_tf.models import create_model, extract_features

TINY = {
    "image_size": 16,
    "patch_size": 8,
    "width": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 24,
    "num_classes": 5,
}
IMAGES = np.random.default_rng(0).uniform(-1, 1, [3, 16, 16, 3]).astype(np.float32)


def feature_and_tensor(model, name, tensor):
    tensors = extract_features(model, IMAGES, {*tensors_of([name]), tensor})
    feature = make_feature(name, tf.constant(IMAGES), tensors, TokenLayout.of(model))
    return feature.numpy(), tensors[tensor].numpy()


@pytest.fixture(scope="module")
def model():
    return create_model("vit", **TINY, num_registers=3)


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        (":token", lambda tokens: tokens[:, 0]),
        (":gap", lambda tokens: tokens[:, 4:].mean(axis=1)),  # no class token, no registers
        (":flat", lambda tokens: tokens.reshape(3, -1)),
        ("", lambda tokens: tokens[:, 0]),  # as the model pools
    ],
)
@pytest.mark.parametrize("tensor", ["block01/out", "block00/mlp", "tokens", "encoded"])
def test_tokens_are_pooled_by_their_suffix(model, tensor, suffix, expected):
    feature, tokens = feature_and_tensor(model, tensor + suffix, tensor)
    assert tokens.shape == (3, 8, 16)
    np.testing.assert_allclose(feature, expected(tokens), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("tensor", ["stem", "pre_logits_2d"])
def test_grids_are_averaged(model, tensor):
    feature, grid = feature_and_tensor(model, tensor, tensor)
    np.testing.assert_allclose(feature, grid.mean(axis=(1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("vit", {"pool": "gap"}),
        ("vit", {"pool": "gap", "num_registers": 2}),
        ("vit", {"pool": "token"}),
        ("deit3", {}),
        ("deit_distilled", {}),
    ],
)
def test_pooled_by_default_is_what_enters_the_head(family, changes):
    model = create_model(family, **{**TINY, **changes})
    feature, pre_logits = feature_and_tensor(model, "encoded", "pre_logits")
    np.testing.assert_allclose(feature, pre_logits, rtol=1e-5, atol=1e-6)


def test_a_distilled_model_s_average_leaves_both_of_its_tokens_out():
    feature, tokens = feature_and_tensor(
        create_model("deit_distilled", **TINY), "block01/out:gap", "block01/out"
    )
    np.testing.assert_allclose(feature, tokens[:, 2:].mean(axis=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pool", ["token", "gap"])
def test_only_the_last_stage_of_a_cvt_has_a_class_token(pool):
    stages = {"image_size": 16, "width": (8, 8), "depth": 1, "num_heads": 2, "patch_size": 3}
    model = create_model("cvt", **stages, patch_stride=2, patch_padding=1, pool=pool)
    first, last = (f"stage{stage}/block00/mlp" for stage in (0, 1))
    feature, tokens = feature_and_tensor(model, f"{first}+{last}+{last}:gap", last)
    patches = tokens[:, pool == "token" :]
    assert patches.shape[1] == 4 * 4
    as_pooled = tokens[:, 0] if pool == "token" else tokens.mean(axis=1)
    np.testing.assert_allclose(feature[:, 8:16], as_pooled, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(feature[:, 16:], patches.mean(axis=1), rtol=1e-5, atol=1e-6)
    earlier, tokens = feature_and_tensor(model, first, first)
    np.testing.assert_allclose(earlier, tokens.mean(axis=1), rtol=1e-5, atol=1e-6)
    convolved = "stage1/block00/conv_proj_k"
    feature, keys = feature_and_tensor(model, convolved, convolved)
    np.testing.assert_allclose(feature, keys.mean(axis=1), rtol=1e-5, atol=1e-6)


def test_positions_before_the_class_token_have_none():
    model = create_model("vit", **TINY)
    feature, tokens = feature_and_tensor(model, "with_posemb", "with_posemb")
    assert tokens.shape == (3, 4, 16)
    np.testing.assert_allclose(feature, tokens.mean(axis=1), rtol=1e-5, atol=1e-6)


def test_parts_stand_one_after_the_other(model):
    feature, tokens = feature_and_tensor(
        model, "block00/out:token+block01/out:gap+pixels", "block01/out"
    )
    assert feature.shape == (3, 16 + 16 + 16 * 16 * 3)
    np.testing.assert_allclose(feature[:, 16:32], tokens[:, 4:].mean(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(feature[:, 32:], IMAGES.reshape(3, -1))


def test_each_tensor_is_asked_for_once():
    names = ["pixels", "block01/out:gap+pre_logits", "block01/out:token", "pre_logits"]
    assert tensors_of(names) == ["block01/out", "pre_logits"]


def test_averages_of_half_types_are_float32():
    tokens = tf.constant(np.linspace(1, 2, 1 * 512 * 4).reshape(1, 512, 4), tf.bfloat16)
    feature = make_feature("block00/out:gap", tokens, {"block00/out": tokens}, TokenLayout())
    expected = tf.cast(tokens, tf.float32).numpy().mean(axis=1)
    np.testing.assert_allclose(feature.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pre_logit", "no intermediate 'pre_logit'. Did you mean 'pre_logits'"),
        ("block01/out:mean", "ends in 'mean'; a part is a tensor's name and, after a colon, gap"),
        ("block01/out++pixels", "has an empty part"),
        ("stem:token", "class token of 'stem', which has none; take 'stem:gap'"),
    ],
)
def test_a_wrong_name_tells_what_would_be_right(model, name, message):
    with pytest.raises(ValueError) as error:
        check_features([name], model.intermediate_names, TokenLayout.of(model))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("pre_logits:gap", "take 'pre_logits'"),
        ("block00/attn_weights", "take 'block00/attn_weights:flat'"),
    ],
)
def test_what_cannot_be_pooled_tells_what_would_be_right(model, name, fix):
    with pytest.raises(ValueError, match=fix):
        feature_and_tensor(model, name, parts_of(name)[0].tensor)


def test_no_feature_is_an_error(model):
    with pytest.raises(ValueError, match="such as 'pre_logits'"):
        check_features([], model.intermediate_names, TokenLayout.of(model))
