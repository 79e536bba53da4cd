"""DynamicViT: tokens gathered in inference and masked in training, and what both have in common."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import vit_tf
from vit_tf.layers import (
    Intermediates,
    TokenPredictor,
    gumbel_noise,
    straight_through_decision,
)
from vit_tf.models import create_model, extract_features

CONFIG = {
    "image_size": 16,
    "patch_size": 4,
    "width": 12,
    "depth": 4,
    "num_heads": 2,
    "mlp_dim": 24,
    "num_classes": 5,
    "pruning_blocks": (1, 3),
    "keep_ratios": (0.5, 0.2),
}


def images_of(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    model = create_model("dynamic_vit", **CONFIG)
    random = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(random.normal(scale=0.3, size=weight.shape))
    return model


def collect(model, images, names, **arguments):
    intermediates = Intermediates(names)
    model(images, intermediates=intermediates, **arguments)
    return [np.array(intermediates.tensors[name]) for name in names]


def test_fewer_and_fewer_tokens_go_on(model):
    assert model.kept_tokens == (8, 3)  # of 16
    names = [f"block{index:02d}/out" for index in range(4)]
    outputs = extract_features(model, images_of(2, 16, 16, 3), names)
    assert [output.shape[1] for output in outputs.values()] == [17, 9, 9, 4]


def test_the_best_tokens_go_on_in_the_order_of_their_scores(model):
    names = ["block00/out", "predictor0/log_probs", "predictor0/kept", "predictor0/kept_positions"]
    tokens, scores, kept, positions = collect(model, images_of(3, 16, 16, 3), names)
    expected = np.argsort(-scores[..., 0], axis=1)[:, :8]
    np.testing.assert_array_equal(kept, expected)
    np.testing.assert_array_equal(positions, expected)
    again = model.predictors[0](tokens[:, 1:])
    np.testing.assert_allclose(scores, again, atol=1e-5)
    np.testing.assert_allclose(np.exp(scores).sum(axis=-1), 1, atol=1e-6)


def test_positions_of_the_second_stage_are_those_of_the_whole_grid(model):
    names = ["predictor0/kept_positions", "predictor1/kept", "predictor1/kept_positions"]
    first, kept, second = collect(model, images_of(3, 16, 16, 3), names)
    np.testing.assert_array_equal(second, np.take_along_axis(first, kept, axis=1))
    (policy,) = collect(model, images_of(3, 16, 16, 3), ["predictor1/policy"])
    for image in range(3):
        np.testing.assert_array_equal(np.flatnonzero(policy[image]), np.sort(second[image]))


def test_masked_and_gathered_logits_agree_where_the_same_tokens_are_kept(model):
    images = images_of(3, 16, 16, 3)
    policies = collect(model, images, ["predictor0/policy", "predictor1/policy"])
    np.testing.assert_allclose(model(images, decisions=policies), model(images), atol=1e-4)
    others = [np.roll(policy, 1, axis=1) for policy in policies]
    assert np.abs(np.array(model(images, decisions=others)) - np.array(model(images))).max() > 1e-2


def test_what_is_dropped_stays_dropped(model):
    keras.utils.set_random_seed(2)
    names = ["predictor0/policy", "predictor1/policy"]
    first, second = collect(model, images_of(8, 16, 16, 3), names, training=True)
    assert set(np.unique(first)) == set(np.unique(second)) == {0.0, 1.0}
    assert np.all(second <= first) and np.any(second < first)


def test_dropped_tokens_have_no_influence_on_others(model):
    """Masked: other values at the places of dropped tokens change no logits."""
    images = images_of(1, 16, 16, 3)
    changed = images.copy()
    changed[:, :4, :4] += 5  # the first patch
    keep = np.ones((1, 16), np.float32)
    keep[:, 0] = 0
    # Blocks before the first pruning see all tokens, so the first is pruned at once.
    early = create_model("dynamic_vit", **CONFIG | {"pruning_blocks": (0, 3)})
    early.set_weights(model.get_weights())
    first, second = (early(x, decisions=[keep, keep]) for x in (images, changed))
    np.testing.assert_allclose(first, second, atol=1e-4)
    assert np.abs(np.array(early(images) - early(changed))).max() > 1e-3


def test_an_image_that_keeps_no_patch_has_finite_logits_and_gradients(model):
    nothing = [np.zeros((2, 16), np.float32)] * 2
    with tf.GradientTape() as tape:
        logits = model(images_of(2, 16, 16, 3), training=True, decisions=nothing)
        loss = tf.reduce_sum(logits**2)
    weights = [weight.value for weight in model.blocks[-1].trainable_variables]
    assert np.isfinite(logits).all()
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(loss, weights))


def test_gradients_pass_decisions_to_the_predictors(model):
    noise = [images_of(2, 16, 2)] * 2
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images_of(2, 16, 16, 3), training=True, noise=noise) ** 2)
    predictors = [weight for p in model.predictors for weight in p.trainable_variables]
    gradients = tape.gradient(loss, [weight.value for weight in predictors])
    for weight, gradient in zip(predictors, gradients, strict=True):
        assert np.isfinite(gradient).all() and np.any(gradient), weight.path


def test_a_decision_is_hard_forward_and_soft_backward():
    log_probs, noise = images_of(3, 6, 2), images_of(3, 6, 2)[::-1]
    scores = tf.constant(log_probs)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        decisions = straight_through_decision(scores, noise)
        loss = tf.reduce_sum(decisions)
    total = log_probs + noise
    np.testing.assert_array_equal(decisions, total[..., 0] >= total[..., 1])
    share = 1 / (1 + np.exp(total[..., 1] - total[..., 0]))
    gradient = share * (1 - share)
    np.testing.assert_allclose(
        tape.gradient(loss, scores), np.stack([gradient, -gradient], axis=-1), atol=1e-6
    )


def test_decisions_are_drawn_with_the_given_probabilities():
    probabilities = np.array([0.1, 0.5, 0.9], np.float32)
    log_probs = np.log(np.stack([probabilities, 1 - probabilities], axis=-1))
    noise = gumbel_noise((20_000, 3, 2), "float32", keras.random.SeedGenerator(1))
    drawn = straight_through_decision(log_probs, noise)
    np.testing.assert_allclose(np.mean(drawn, axis=0), probabilities, atol=0.02)
    assert np.isfinite(noise).all()
    np.testing.assert_allclose([np.mean(noise), np.var(noise)], [0.577, np.pi**2 / 6], atol=0.03)


def test_half_of_the_channels_give_way_to_their_mean_over_kept_tokens():
    predictor = TokenPredictor()
    tokens = images_of(2, 6, 8)
    predictor.build(tokens.shape)
    random = np.random.default_rng(2)
    for weight in predictor.weights:
        weight.assign(random.normal(scale=0.5, size=weight.shape))
    keep = np.array([[1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1]], np.float32)
    changed = tokens.copy()
    changed[:, 1] = tokens[:, 1, ::-1]  # kept in the first image alone
    before, after = (np.array(predictor(x, keep=keep)) for x in (tokens, changed))
    others = [0, 2, 3, 4, 5]
    assert np.abs(before - after)[0, others].max() > 1e-3
    np.testing.assert_array_equal(before[1, others], after[1, others])


def test_another_image_size_keeps_the_same_shares(model, tmp_path):
    path = str(tmp_path / "file.pth")
    vit_tf.save_checkpoint(model, path)
    larger = create_model("dynamic_vit", **CONFIG | {"image_size": (24, 40)})
    report = vit_tf.load_checkpoint(larger, path, strict=True)
    assert list(report.resized) == ["positions/table"]
    assert larger.kept_tokens == (30, 12)  # of 60
    assert np.isfinite(larger(images_of(2, 24, 40, 3))).all()


def test_a_deit_file_fills_all_but_the_predictors(model, tmp_path):
    body = {k: v for k, v in CONFIG.items() if k not in ("pruning_blocks", "keep_ratios")}
    deit = create_model("deit", **body)
    path = str(tmp_path / "file.pth")
    vit_tf.save_checkpoint(deit, path)
    pruned = create_model("dynamic_vit", **CONFIG)
    with pytest.warns(UserWarning, match="predictor0"):
        report = vit_tf.load_checkpoint(pruned, path)
    assert {weight.partition("/")[0] for weight in report.missing} == {"predictor0", "predictor1"}
    images = images_of(2, 16, 16, 3)
    everything = [np.ones((2, 16), np.float32)] * 2
    np.testing.assert_allclose(pruned(images, decisions=everything), deit(images), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pruning_blocks": (3, 1)}, r"pruning_blocks=\(3, 1\) must be rising"),
        ({"pruning_blocks": (1, 4)}, "below depth=4"),
        ({"keep_ratios": (0.5,)}, "must be 2 shares"),
        ({"keep_ratios": (0.2, 0.5)}, "none larger than the one before it"),
        ({"keep_ratios": (1.5, 0.5)}, r"shares in \(0, 1\]"),
    ],
)
def test_prunings_that_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        create_model("dynamic_vit", **CONFIG | changes)
