"""DynamicViT's losses and their gradients are the reference's; a student learns to drop tokens."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.checkpoints import load_checkpoint, save_checkpoint
from vit_tf.models import create_model
from vit_tf.training import CachedTeacher, Optimization, Teacher, TokenPruning
from vit_tf.training.tasks.token_pruning import ratio_loss, token_loss

SIZES = dict(image_size=8, patch_size=2, width=32, depth=3, num_heads=2, mlp_dim=64, num_classes=10)
make_teacher = functools.partial(create_model, "deit", **SIZES)
make_student = functools.partial(
    create_model, "dynamic_vit", pruning_blocks=(1, 2), keep_ratios=(0.5, 0.25), **SIZES
)


class Stored(keras.Model):
    """A model whose weights are what it says, and which tokens it keeps, whatever the images."""

    def __init__(self, stored):
        super().__init__()
        self.keep_ratios = (0.7, 0.49, 0.343)
        stages = range(len(self.keep_ratios))
        names = {f"predictor{stage}/policy": f"policy{stage}" for stage in stages}
        names |= {"logits": "logits", "encoded": "tokens"}
        self.intermediate_names = list(names)
        self.stored = {}
        for name, key in names.items():
            self.stored[name] = self.add_weight(shape=stored[key].shape, name=key)
            self.stored[name].assign(stored[key])

    def call(self, images, training=None, intermediates=None):
        for name, weight in self.stored.items():
            value = tf.convert_to_tensor(weight)
            if name == "encoded":  # a class token stands before the patches
                value = tf.pad(value, [[0, 0], [1, 0], [0, 0]])
            intermediates.record(name, value)


def trained(path, **changes):
    """Writes a teacher whose weights are no longer those of a fresh model."""
    keras.utils.set_random_seed(1)
    model = make_teacher(**changes)
    for weight in model.weights:
        weight.assign(weight + keras.random.normal(weight.shape, stddev=0.05))
    save_checkpoint(model, path)
    return Teacher(functools.partial(make_teacher, **changes), weights=path)


class KnowingTeacher:
    """The answers are in the batch already."""

    sees_mixed_images = True

    def with_features(self, batch, names):
        raise NotImplementedError


@pytest.fixture(scope="module")
def stored(shared):
    return dict(np.load(shared / "golden" / "dynamic_vit" / "training_losses" / "io.npz"))


def test_losses_and_gradients_are_the_references(stored):
    model = Stored(stored)
    batch = {
        "image": tf.zeros([3, 8, 8, 3]),
        "targets": tf.constant(stored["labels"]),
        "mask": tf.ones([3]),
        "teacher_logits": tf.constant(stored["teacher_logits"]),
        "teacher_tokens": tf.constant(stored["teacher_tokens"]),
    }
    with tf.GradientTape() as tape:
        values = TokenPruning(None, KnowingTeacher()).train_values(model, batch)
        means = {name: tf.reduce_mean(value) for name, value in values.items()}
    # The stored token loss is over other tokens than those that the last stage keeps.
    tokens = stored["token_distillation"]
    expected = {
        "label_loss": stored["classification"],
        "ratio_loss": stored["ratio_sum"] / 3,  # the reference divides within its total
        "logit_loss": stored["logit_distillation"],
        "loss": stored["total"] + 0.5 * (means["token_loss"] - tokens),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(means[name], value, rtol=1e-5, err_msg=name)
    weights = [weight for weight in model.trainable_weights if weight.name != "tokens"]
    gradients = tape.gradient(means["loss"], weights)
    for weight, gradient in zip(weights, gradients, strict=True):
        right = stored[f"grad/{weight.name}"]
        np.testing.assert_allclose(gradient, right, rtol=0, atol=1e-5 * np.abs(right).max())


def test_the_token_loss_and_its_gradients_are_the_references(stored):
    tokens, keep = tf.constant(stored["tokens"]), tf.constant(stored["final_policy"])
    with tf.GradientTape() as tape:
        tape.watch([tokens, keep])
        losses = token_loss(tokens, stored["teacher_tokens"], keep, tf.ones([3]))
        loss = 0.5 * tf.reduce_mean(losses)
    np.testing.assert_allclose(tf.reduce_mean(losses), stored["token_distillation"], rtol=1e-5)
    gradient, none = tape.gradient(loss, [tokens, keep])
    right = stored["grad/tokens"]
    np.testing.assert_allclose(gradient, right, rtol=0, atol=1e-5 * np.abs(right).max())
    assert none is None


def test_an_image_counts_by_how_many_tokens_it_keeps():
    tokens = tf.reshape(tf.range(12.0), [3, 4, 1])
    keep = tf.constant([[1.0, 1, 1, 0], [0, 0, 0, 1], [1, 1, 1, 1]])
    losses = token_loss(tokens, tf.zeros_like(tokens), keep, tf.constant([1.0, 1.0, 0.0]))
    # The third example is none: 0, 1, 4 of the first and 49 of the second are all that there is.
    assert np.mean(losses[:2]) == pytest.approx((0 + 1 + 4 + 49) / 4)
    nothing = token_loss(tokens, tf.zeros_like(tokens), tf.zeros_like(keep), tf.ones([3]))
    np.testing.assert_array_equal(nothing, 0)


def test_shares_are_held_against_those_that_are_wanted():
    kept = [tf.constant([[1.0, 1, 1, 0]]), tf.constant([[1.0, 0, 0, 0]])]
    expected = ((0.75 - 0.5) ** 2 + (0.25 - 0.25) ** 2) / 2
    assert ratio_loss(kept, (0.5, 0.25)).numpy() == pytest.approx([expected])


def test_the_share_of_kept_tokens_comes_to_what_is_wanted(
    make_estimator, train_input, eval_input, tmp_path
):
    path = str(tmp_path / "teacher.pth")
    teacher = trained(path)

    def student():
        model = make_student()
        report = load_checkpoint(model, path)
        assert all(name.startswith("predictor") for name in report.missing)
        return model

    task = TokenPruning(student, teacher, ratio_weight=20.0)
    optimization = Optimization(keras.optimizers.Adam, learning_rate=3e-3)
    estimator = make_estimator(
        task=task, steps=40, eval_interval=40, steps_per_loop=10, optimization=optimization
    )
    values = estimator.train(train_input)
    assert values["kept0"] == pytest.approx(0.5, abs=0.1)
    assert values["kept1"] == pytest.approx(0.25, abs=0.1)
    assert estimator.evaluate(eval_input)["examples"] == 360


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TokenPruning(make_student, KnowingTeacher(), ratio_weight=-1.0), "ratio_weight"),
        (
            lambda: TokenPruning(make_teacher, KnowingTeacher()).build_model(),
            "TokenPruning needs a model that drops tokens, such as .*; .* drops none",
        ),
        (
            lambda: TokenPruning(make_student, object.__new__(CachedTeacher)),
            "which a CachedTeacher does not keep; give it a Teacher",
        ),
    ],
)
def test_what_cannot_be_learned_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_teacher_of_other_tokens_is_refused(train_input, tmp_path):
    student, batch = make_student(), {"image": tf.zeros([2, 8, 8, 3])}
    for changes, message in (
        ({"width": 48}, "the teacher's tokens are 16 of width 48 and the student's 16 of width 32"),
        ({"patch_size": 4}, "the teacher's tokens are 5 of width 32 and"),
    ):
        teacher = trained(str(tmp_path / "other.pth"), **changes)
        teacher.prepare(student, train_input)
        with pytest.raises(ValueError, match=message):
            TokenPruning(make_student, teacher).teacher_answers(student, batch)
    linear = keras.Sequential([keras.layers.Input((8, 8, 3)), keras.layers.Flatten()])
    linear.add(keras.layers.Dense(10))
    teacher = Teacher(lambda: linear, preprocessing={"value_range": (0, 1)})
    teacher.prepare(student, train_input)
    with pytest.raises(ValueError, match="shows its logits alone; encoded can be had of a model"):
        teacher.with_features(batch, ["encoded"])
