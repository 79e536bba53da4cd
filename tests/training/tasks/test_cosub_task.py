"""Co-training of submodels: the reference's loss, and what it needs."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from vit_tf.models import create_model
from vit_tf.training import Cosub
from vit_tf.training.randomness import replica_key, seeded

TINY = dict(name="deit3", image_size=8, patch_size=4, width=16, depth=2, num_heads=2, mlp_dim=16)
make_model = functools.partial(create_model, **TINY, num_classes=10, stochastic_depth=0.5)
RNG = np.random.default_rng(0)
BATCH = {
    "image": RNG.normal(size=(5, 8, 8, 3)).astype(np.float32),
    "targets": (RNG.uniform(size=(5, 10)) > 0.7).astype(np.float32),
}


@pytest.fixture(scope="module")
def run():
    """`run(task)`: values, outputs of both submodels, gradient with respect to the head's bias."""
    model = Cosub(make_model).build_model()
    for layer_scale in (w for w in model.weights if "scale" in w.path):
        layer_scale.assign(tf.ones_like(layer_scale))  # so that blocks matter
    model.head.kernel.assign(tf.random.stateless_normal(model.head.kernel.shape, [1, 2]))

    def of(task):
        step = tf.constant(7, tf.int64)
        with seeded(model, replica_key(1, step)):
            twice = model(np.concatenate([BATCH["image"]] * 2), training=True)
        with tf.GradientTape() as tape:
            with seeded(model, replica_key(1, step)):
                values = task.train_values(model, {k: tf.constant(v) for k, v in BATCH.items()})
            loss = tf.reduce_mean(values["loss"])
        gradient = tape.gradient(loss, model.head.bias.value)
        return values, np.split(twice.numpy().astype(np.float64), 2), gradient.numpy()

    return of


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def bce(o, y):
    p = sigmoid(o)
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


def test_loss_is_a_quarter_of_four_cross_entropies(run):
    values, (o1, o2), _ = run(Cosub(make_model))
    y = BATCH["targets"]
    terms = [bce(o1, y), bce(o2, y), bce(o1, sigmoid(o2)), bce(o2, sigmoid(o1))]
    expected = np.mean(np.sum(terms, axis=0) / 4, axis=-1)
    np.testing.assert_allclose(values["loss"], expected, rtol=1e-4)
    np.testing.assert_allclose(values["label_loss"], (terms[0] + terms[1]).mean(-1) / 2, rtol=1e-4)


def test_no_gradient_flows_through_the_other_submodels_answer(run):
    _, (o1, o2), gradient = run(Cosub(make_model))
    y = BATCH["targets"]
    of_labels = (sigmoid(o1) - y) + (sigmoid(o2) - y)
    # (sigmoid(o1) - sigmoid(o2)) + (sigmoid(o2) - sigmoid(o1)) cancel in the bias's gradient.
    np.testing.assert_allclose(gradient, of_labels.sum(0) / 4 / (5 * 10), rtol=1e-3, atol=1e-6)


def test_submodels_draw_masks_of_their_own(run):
    _, (o1, o2), _ = run(Cosub(make_model))
    assert (np.abs(o1 - o2).max(-1) > 1e-3).sum() >= 2


@pytest.mark.parametrize("threshold", [None, 0.0])
def test_targets_are_binarised_only_when_asked(threshold):
    soft = tf.constant(BATCH["targets"] * 0.3)
    task = Cosub(make_model, target_threshold=threshold)
    targets, _ = task._training_targets({"targets": soft}, 10)
    np.testing.assert_array_equal(targets, soft if threshold is None else BATCH["targets"])


def test_learns_with_xla(make_estimator, train_input, eval_input):
    make = functools.partial(
        make_model, width=32, mlp_dim=64, stochastic_depth=0.2, layer_scale_init=1.0
    )
    estimator = make_estimator(task=Cosub(make), steps=150, eval_interval=150, jit_compile=True)
    values = estimator.train_and_evaluate(train_input, eval_input)
    assert values["accuracy"] > 0.2  # 0.1 by chance


def test_needs_stochastic_depth():
    with pytest.raises(ValueError, match="set create_model.stochastic_depth above 0"):
        Cosub(functools.partial(make_model, stochastic_depth=0.0)).build_model()


def test_softmax_is_refused():
    with pytest.raises(ValueError, match="Cosub.loss must be 'sigmoid_mean' or 'sigmoid'"):
        Cosub(make_model, loss="softmax")
