"""Distillation losses and their gradients: those of facebookresearch/deit, through the tasks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.models import create_model
from vit_tf.training import KnowledgeDistillation, TokenDistillation
from vit_tf.training.tasks.distillation import kl_divergence

CLASSES = 7
SETTINGS = [(0.5, 1.0), (0.1, 3.0), (0.9, 2.0)]
# Name of the reference's base criterion -> the task's settings, and which targets it is given.
BASES = {
    "cross_entropy": ({}, "labels"),
    "label_smoothing_0.1": ({"label_smoothing": 0.1}, "labels"),
    "soft_target": ({}, "soft_labels"),
    "bce_soft": ({"loss": "sigmoid_mean"}, "soft_labels"),
    "bce_binarised": ({"loss": "sigmoid_mean", "target_threshold": 0.05}, "soft_labels"),
}


class StoredHeads(keras.Model):
    """A model whose weights are what its two heads say, whatever the images."""

    num_classes = CLASSES
    heads = ("head", "head_dist")

    def __init__(self, *logits):
        super().__init__()
        self.logits = [
            self.add_weight(shape=x.shape, name=f"logits{i}") for i, x in enumerate(logits)
        ]
        for weight, value in zip(self.logits, logits, strict=True):
            weight.assign(value)

    def call(self, images, training=None):
        outputs = tuple(tf.convert_to_tensor(weight) for weight in self.logits)
        return outputs if training and len(outputs) > 1 else outputs[0]


class SilentTeacher:
    """The answers are in the batch already."""

    sees_mixed_images = True
    unknown_classes = ()


@pytest.fixture(scope="module")
def stored(shared):
    return dict(np.load(shared / "golden" / "behaviour" / "distillation_loss" / "io.npz"))


def values_and_gradients(task, stored, targets, heads=("logits_class", "logits_dist")):
    model = StoredHeads(*(stored[name] for name in heads))
    batch = {
        "image": tf.zeros([6, 8, 8, 3]),
        "teacher_logits": tf.constant(stored["teacher_logits"]),
    }
    batch["label" if targets == "labels" else "targets"] = tf.constant(stored[targets])
    with tf.GradientTape() as tape:
        values = task.train_values(model, batch)
        loss = tf.reduce_mean(values["loss"])
    gradients = tape.gradient(loss, model.trainable_weights, unconnected_gradients="zero")
    return values, loss.numpy(), [gradient.numpy() for gradient in gradients]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", ["hard", "soft"])
@pytest.mark.parametrize(("alpha", "tau"), SETTINGS)
def test_token_distillation_is_the_references(stored, base, kind, alpha, tau):
    settings, targets = BASES[base]
    task = TokenDistillation(
        None, SilentTeacher(), kind=kind, alpha=alpha, temperature=tau, **settings
    )
    values, loss, gradients = values_and_gradients(task, stored, targets)
    case = f"{base}/{kind}/alpha{alpha}_tau{tau:g}"
    np.testing.assert_allclose(loss, stored[case], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        np.mean(values["label_loss"]), stored[f"{base}/base_loss"], rtol=1e-5, atol=1e-6
    )
    for name, gradient in zip(("grad_class", "grad_dist"), gradients, strict=True):
        if f"{case}/{name}" in stored:
            expected = stored[f"{case}/{name}"]
            np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_without_the_teachers_share_only_the_class_head_learns(stored):
    task = TokenDistillation(None, SilentTeacher(), alpha=0.0)
    _, loss, (of_class, of_dist) = values_and_gradients(task, stored, "labels")
    np.testing.assert_allclose(loss, stored["cross_entropy/none/alpha0.5_tau1"], rtol=1e-5)
    expected = stored["cross_entropy/none/alpha0.5_tau1/grad_class"]
    np.testing.assert_allclose(of_class, expected, rtol=1e-5, atol=1e-6)
    assert not of_dist.any()


@pytest.mark.parametrize(("alpha", "learns"), [(0.0, "head"), (1.0, "head_dist")])
def test_the_heads_of_a_levit_learn_apart(alpha, learns):
    model = create_model(
        "levit", width=(8, 12), depth=1, num_heads=2, key_dim=4, image_size=64, num_classes=CLASSES
    )
    task = TokenDistillation(lambda: model, SilentTeacher(), alpha=alpha)
    assert task.build_model() is model
    random = np.random.default_rng(0)
    batch = {
        "image": tf.constant(random.normal(size=(4, 64, 64, 3)), tf.float32),
        "teacher_logits": tf.constant(random.normal(size=(4, CLASSES)), tf.float32),
        "label": tf.constant([0, 1, 2, 3]),
    }
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(task.train_values(model, batch)["loss"])
    heads = {name: getattr(model, name).kernel.value for name in model.heads}
    found = tape.gradient(loss, heads, unconnected_gradients="zero")
    assert [name for name, gradient in found.items() if np.any(gradient)] == [learns]


def test_agreement_and_accuracy_of_the_teacher_are_logged(stored):
    task = TokenDistillation(None, SilentTeacher())
    values, _, _ = values_and_gradients(task, stored, "labels")
    answers = stored["teacher_logits"].argmax(-1)
    np.testing.assert_array_equal(
        values["teacher_agreement"], stored["logits_dist"].argmax(-1) == answers
    )
    np.testing.assert_array_equal(values["teacher_accuracy"], answers == stored["labels"])


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_function_matching_is_the_kl_divergence_and_its_gradient(stored, temperature):
    task = KnowledgeDistillation(None, SilentTeacher(), temperature=temperature)
    _, loss, (gradient,) = values_and_gradients(task, stored, "labels", ["logits_class"])
    p, q = (softmax(stored[k] / temperature) for k in ("teacher_logits", "logits_class"))
    expected = temperature**2 * np.mean(np.sum(p * np.log(p / q), axis=-1))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, temperature * (q - p) / 6, rtol=1e-4, atol=1e-7)


def test_label_weight_shares_the_loss_with_the_labels(stored):
    task = KnowledgeDistillation(None, SilentTeacher(), temperature=2.0, label_weight=0.25)
    values, loss, _ = values_and_gradients(task, stored, "labels", ["logits_class"])
    np.testing.assert_allclose(
        np.mean(values["label_loss"]), stored["cross_entropy/base_loss"], rtol=1e-5
    )
    expected = 0.75 * values["distillation_loss"] + 0.25 * values["label_loss"]
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-6)


def test_a_student_of_two_heads_learns_with_both(stored):
    task = KnowledgeDistillation(None, SilentTeacher())
    values, _, _ = values_and_gradients(task, stored, "labels")
    each = [
        kl_divergence(stored["teacher_logits"], stored[name], 1.0)
        for name in ("logits_class", "logits_dist")
    ]
    np.testing.assert_allclose(values["distillation_loss"], np.mean(each, axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "warm"}, "kind must be 'hard' or 'soft'; given 'warm'"),
        ({"alpha": 1.5}, r"alpha must lie in \[0, 1\]; given 1.5"),
        ({"temperature": 0.0}, "TokenDistillation.temperature must be above 0; given 0.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TokenDistillation(None, SilentTeacher(), **settings)


def test_label_weight_of_one_is_no_distillation():
    with pytest.raises(ValueError, match="label_weight must lie in"):
        KnowledgeDistillation(None, SilentTeacher(), label_weight=1.0)
