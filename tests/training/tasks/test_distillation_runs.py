"""Students learn from a teacher in whole runs, at any patch size too."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.checkpoints import load_checkpoint, save_checkpoint
from vit_tf.models import create_model
from vit_tf.training import (
    FlexiClassification,
    KnowledgeDistillation,
    Optimization,
    Teacher,
    TokenDistillation,
)

SIZES = dict(image_size=8, width=32, depth=2, num_heads=2, mlp_dim=64, num_classes=10)
make_student = functools.partial(create_model, "vit", patch_size=4, pool="gap", **SIZES)
make_distilled = functools.partial(create_model, "deit_distilled", patch_size=4, **SIZES)
make_flexi = functools.partial(create_model, "flexivit", patch_size=4, **SIZES)


@pytest.fixture(scope="module")
def make_teacher(eval_input):
    """A linear classifier of the digits in [0, 1], by ridge regression on half of the test set."""
    batches = list(eval_input())[:2]
    pixels = np.concatenate([b["image"].numpy().reshape(100, -1) for b in batches]) / 2 + 0.5
    labels = np.concatenate([b["label"].numpy() for b in batches])
    features = np.concatenate([pixels, np.ones([200, 1])], axis=1)
    gram = features.T @ features + 0.5 * np.eye(features.shape[1])
    solution = np.linalg.solve(gram, features.T @ (8.0 * np.eye(10)[labels]))

    def make():
        layers = [keras.layers.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]
        model = keras.Sequential(layers)
        model.layers[-1].set_weights([solution[:-1], solution[-1]])
        return model

    return functools.partial(Teacher, make, preprocessing={"value_range": (0, 1)})


def test_a_student_learns_from_the_teacher_without_any_label(
    make_estimator, make_teacher, train_input, eval_input
):
    task = KnowledgeDistillation(make_student, make_teacher())
    estimator = make_estimator(task=task, steps=150, eval_interval=150, jit_compile=True)
    values = estimator.train_and_evaluate(train_input, eval_input)
    assert values["accuracy"] > 0.4  # 0.1 by chance


def test_a_distillation_token_learns_what_the_teacher_says(
    make_estimator, make_teacher, train_input
):
    task = TokenDistillation(make_distilled, make_teacher(), label_smoothing=0.1)
    estimator = make_estimator(task=task, steps=150, eval_interval=50)
    values = estimator.train(train_input)
    assert values["teacher_accuracy"] > 0.2  # on digits that are shifted, which it never saw
    assert values["teacher_agreement"] > 0.2  # 0.1 by chance
    assert values["loss"] == pytest.approx(
        (values["label_loss"] + values["distillation_loss"]) / 2, rel=1e-5
    )


@pytest.mark.slow
def test_flexivit_is_distilled_the_same_on_two_devices_and_in_micro_batches(
    make_estimator, make_teacher, train_input, tmp_path
):
    def trained(name, **settings):
        task = KnowledgeDistillation(make_flexi, make_teacher(), temperature=2.0)
        estimator = make_estimator(
            tmp_path / name,
            task=FlexiClassification(task, patch_sizes=(2, 4)),
            steps=4,
            eval_interval=4,
            optimization=Optimization(keras.optimizers.SGD, learning_rate=0.1),
            **settings,
        )
        return estimator.train(train_input), estimator.model.get_weights()

    alone, weights = trained("alone")
    for settings in ({"strategy": "mirrored"}, {"accumulation_steps": 2}):
        values, other_weights = trained(next(iter(settings)), **settings)
        for name in ("loss", "distillation_loss", "teacher_agreement"):
            assert values[name] == pytest.approx(alone[name], rel=1e-4)
        for one, other in zip(weights, other_weights, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_teacher_of_a_flexivit_answers_at_its_own_patch_size():
    """In `augment`, whatever size was drawn."""
    teacher_model = make_flexi(patch_size=8, default_patch_size=2)
    images = tf.random.stateless_normal([4, 8, 8, 3], [1, 2])
    for weight in teacher_model.weights:
        weight.assign(tf.random.stateless_normal(weight.shape, [3, 4], stddev=0.3))
    inner = KnowledgeDistillation(make_flexi, Teacher(lambda: teacher_model))
    task = FlexiClassification(inner, patch_sizes=(4, 8))
    model = task.build_model()
    task.prepare(model, None)
    batch = {"image": images, "label": tf.range(4), "mask": tf.ones(4)}
    for choice in (0, 1):
        chosen = {**batch, "form": tf.constant(choice)}
        answered = task.augment(model, chosen, tf.constant([0, 0]))
        expected = teacher_model(images, patch_size=2)
        np.testing.assert_allclose(answered["teacher_logits"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["vit", "deit3"])
def test_a_flexivit_starts_from_its_teacher(family, tmp_path):
    """Section 3.5: the patch kernel PI-resized, the rest taken over."""
    sizes = {**SIZES, "patch_size": 4}
    if family == "vit":
        sizes["position_includes_class_token"] = False
    teacher = create_model(family, **sizes)
    path = str(tmp_path / ("teacher.npz" if family == "vit" else "teacher.pth"))
    save_checkpoint(teacher, path)
    student = make_flexi(
        patch_size=8,
        position_grid_size=2,
        layer_scale_init=1e-4 if family == "deit3" else None,
    )
    report = load_checkpoint(student, path)
    assert any("patch_embedding" in weight for weight in report.resized)
    assert report.complete and not report.reset, str(report)
