"""Keras losses, and a user's own, drop in beside the named ones."""

import functools

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.models import create_model
from vit_tf.training import Classification, Cosub, configuration
from vit_tf.training.tasks.losses import logit_loss

make_model = functools.partial(
    create_model,
    "vit",
    image_size=8,
    patch_size=4,
    width=8,
    depth=1,
    num_heads=2,
    mlp_dim=8,
    num_classes=4,
)
LOGITS = np.random.default_rng(0).normal(0, 2, (6, 4)).astype(np.float32)
TARGETS = np.random.default_rng(1).dirichlet(np.ones(4), 6).astype(np.float32)


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


def probabilities(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


class TestOfKeras:
    def test_cross_entropy_is_the_named_one(self):
        own = logit_loss(keras.losses.CategoricalCrossentropy(from_logits=True))
        named = logit_loss("softmax")
        np.testing.assert_allclose(
            own.values(TARGETS, LOGITS), named.values(TARGETS, LOGITS), rtol=1e-5
        )
        np.testing.assert_allclose(own.probabilities(LOGITS), probabilities(LOGITS), rtol=1e-5)

    def test_focal_loss_follows_its_equation(self):
        loss = keras.losses.CategoricalFocalCrossentropy(from_logits=True, alpha=0.25, gamma=2.0)
        p = probabilities(LOGITS.astype(np.float64))
        wanted = (0.25 * (1 - p) ** 2 * -np.log(p) * TARGETS).sum(-1)
        np.testing.assert_allclose(logit_loss(loss).values(TARGETS, LOGITS), wanted, rtol=1e-4)

    def test_a_binary_one_takes_classes_that_do_not_exclude_each_other(self):
        loss = logit_loss(keras.losses.BinaryCrossentropy(from_logits=True))
        named = logit_loss("sigmoid_mean")
        np.testing.assert_allclose(
            loss.values(TARGETS, LOGITS), named.values(TARGETS, LOGITS), rtol=1e-5
        )
        np.testing.assert_allclose(loss.probabilities(LOGITS), tf.sigmoid(LOGITS))

    def test_one_of_probabilities_is_refused(self):
        with pytest.raises(ValueError, match="set CategoricalCrossentropy.from_logits = True"):
            logit_loss(keras.losses.CategoricalCrossentropy())


class TestInTasks:
    def test_it_trains_and_evaluates_through_gin(self):
        configuration.parse(
            [],
            [
                "Classification.model = @create_model",
                "Classification.loss = @CategoricalFocalCrossentropy()",
                "Classification.label_smoothing = 0.1",
                "CategoricalFocalCrossentropy.from_logits = True",
                "CategoricalFocalCrossentropy.gamma = 3.0",
            ],
        )
        configured = configuration.bound("Classification")(make_model)
        model = configured.build_model()
        images = np.random.default_rng(2).normal(size=(6, 8, 8, 3)).astype(np.float32)
        batch = {"image": tf.constant(images), "label": tf.constant([0, 1, 2, 3, 0, 1])}
        targets = np.eye(4)[batch["label"].numpy()] * 0.9 + 0.1 / 4
        focal = keras.losses.CategoricalFocalCrossentropy(from_logits=True, gamma=3.0)
        wanted = focal.call(tf.constant(targets, tf.float32), model(images, training=True))
        values = configured.train_values(model, batch)
        np.testing.assert_allclose(values["loss"], wanted, rtol=1e-5)
        assert configured.eval_values(model, batch)["loss"].shape == (6,)

    def test_a_function_of_targets_and_logits_is_one(self):
        def margin(targets, logits):
            return keras.ops.max(logits, axis=-1) - keras.ops.sum(targets * logits, axis=-1)

        task = Classification(make_model, loss=margin)
        values = task.eval_values(
            task.build_model(), {"image": tf.zeros([2, 8, 8, 3]), "label": tf.constant([0, 1])}
        )
        assert values["loss"].shape == (2,)

    def test_cosub_needs_one_of_sigmoids(self):
        Cosub(make_model, loss=keras.losses.BinaryFocalCrossentropy(from_logits=True))
        with pytest.raises(ValueError, match="submodels learn each other's sigmoids"):
            Cosub(make_model, loss=keras.losses.CategoricalCrossentropy(from_logits=True))

    def test_target_threshold_is_for_sigmoids(self):
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        with pytest.raises(ValueError, match="must sum to one"):
            Classification(make_model, loss=loss, target_threshold=0.0)


@pytest.mark.parametrize(
    ("loss", "error", "words"),
    [
        ("hinge", ValueError, "must be one of softmax, sigmoid, sigmoid_mean, or a Keras loss"),
        (keras.losses.CategoricalCrossentropy, TypeError, r"@CategoricalCrossentropy\(\)"),
        (3, TypeError, "given 3"),
    ],
)
def test_what_is_no_loss_is_refused(loss, error, words):
    with pytest.raises(error, match=words):
        Classification(make_model, loss=loss)


def test_a_loss_of_the_whole_batch_is_refused():
    with pytest.raises(ValueError, match="one value an example"):
        logit_loss(lambda targets, logits: tf.reduce_mean(targets * logits)).values(TARGETS, LOGITS)
