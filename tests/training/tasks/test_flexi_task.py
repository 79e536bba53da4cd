"""FlexiViT's training: a patch size drawn each step, in one graph."""

import functools

import gin
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.models import create_model
from vit_tf.training import (
    Classification,
    Estimator,
    FlexiClassification,
    KnowledgeDistillation,
    RunConfig,
    configuration,
)
from vit_tf.training.gradients import Gradients
from vit_tf.training.loop import TrainLoop
from vit_tf.training.randomness import seeded, step_key

TINY = dict(image_size=8, patch_size=4, width=32, depth=2, num_heads=2, mlp_dim=32, num_classes=10)
make_flexi = functools.partial(create_model, "flexivit", **TINY, stochastic_depth=0.2, dropout=0.1)


def flexi(**settings):
    settings = {"patch_sizes": (2, 4, 8), **settings}
    return FlexiClassification(Classification(make_flexi), **settings)


def drawn(task, steps, seed=0):
    draw = tf.function(lambda step: task.draw(step_key(seed, step))["form"])
    return [int(draw(tf.constant(step, tf.int64))) for step in range(steps)]


class TestDraw:
    def test_follows_from_seed_and_step_alone_and_is_the_same_compiled(self):
        task = flexi()
        compiled = tf.function(lambda step: task.draw(step_key(0, step))["form"], jit_compile=True)
        assert drawn(task, 20) == drawn(flexi(), 20)
        assert drawn(task, 20) == [int(compiled(tf.constant(s, tf.int64))) for s in range(20)]
        assert drawn(task, 20) != drawn(task, 20, seed=1)

    @pytest.mark.parametrize("weights", [None, (1, 0, 3)])
    def test_sizes_come_as_often_as_their_weights_say(self, weights):
        counts = np.bincount(drawn(flexi(weights=weights), 1500), minlength=3) / 1500
        shares = np.array(weights or (1, 1, 1)) / sum(weights or (1, 1, 1))
        np.testing.assert_allclose(counts, shares, atol=0.04)
        assert (counts[shares == 0] == 0).all()

    def test_facts_tell_the_shares(self):
        assert flexi(weights=(1, 0, 3)).facts()["patches"] == "2 (25%), 4 (0%), 8 (75%)"


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": tf.constant(rng.normal(size=(6, 8, 8, 3)).astype(np.float32)),
        "label": tf.constant(rng.integers(0, 10, 6)),
        "mask": tf.ones([6]),
    }


def test_a_step_is_the_tasks_own_at_the_size_that_was_drawn(batch):
    """Sums and gradients, with dropout, equal those of a plain call with that patch size."""
    inner = Classification(make_flexi)
    task = FlexiClassification(inner, (2, 4, 8))
    model = task.build_model()
    model.head.kernel.assign(tf.random.stateless_normal(model.head.kernel.shape, [1, 2]))
    weights = [tf.convert_to_tensor(weight) for weight in model.trainable_weights]
    key = tf.constant([3, 4])
    switched = Gradients(task, model, [], global_batch=6, accumulation_steps=1)
    step = tf.function(lambda form: switched({**batch, "form": form}, weights, [], key))
    for form, size in enumerate((2, 4, 8)):
        gradients, _, sums = step(tf.constant(form))
        expected = _plain(functools.partial(model, patch_size=size), model, inner, batch, key)
        for name, value in zip(switched.names, sums, strict=False):
            np.testing.assert_allclose(value, tf.reduce_sum(expected[name]), rtol=1e-4)
        for one, other in zip(gradients, expected["gradients"], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
    assert step.experimental_get_tracing_count() == 1


def _plain(at_size, model, task, batch, key):
    """The values of a plain call, and the gradients of their mean loss."""

    @tf.function
    def run():
        with tf.GradientTape() as tape, seeded(model, key):
            values = task.train_values(at_size, batch)
            loss = tf.reduce_mean(values["loss"])
        return values, tape.gradient(loss, model.trainable_weights)

    values, gradients = run()
    return {**values, "examples": batch["mask"], "gradients": gradients}


class TestRun:
    @pytest.mark.slow
    def test_learns_traces_once_and_evaluates_at_each_size(
        self, make_estimator, train_input, eval_input, monkeypatch
    ):
        loops = []
        keep = TrainLoop.__init__
        monkeypatch.setattr(
            TrainLoop,
            "__init__",
            lambda self, *a, **k: (loops.append(self), keep(self, *a, **k))[1],
        )
        config = dict(steps=150, steps_per_loop=50, eval_interval=150, jit_compile=True)
        estimator = make_estimator(task=flexi(metric="accuracy_patch2"), **config)
        values = estimator.train_and_evaluate(train_input, eval_input)
        assert [loop.num_traces for loop in loops] == [1]
        of_sizes = [values[f"accuracy_patch{size}"] for size in (2, 4, 8)]
        assert min(of_sizes) > 0.2  # 0.1 by chance
        assert np.mean(of_sizes) == pytest.approx(values["accuracy"])
        assert values["top5_accuracy_patch4"] >= values["accuracy_patch4"]

    @pytest.mark.slow
    def test_resumes_bit_for_bit(self, tmp_path, train_input):
        config = dict(strategy="cpu", steps=6, steps_per_loop=2, eval_interval=2)

        def weights(folder, *stops):
            for steps in stops:
                estimator = Estimator(flexi(), tmp_path / folder, RunConfig(**config))
                estimator.train(train_input, steps=steps)
            return estimator.model.get_weights()

        for one, other in zip(weights("whole", 6), weights("parts", 2, 6), strict=True):
            np.testing.assert_array_equal(one, other)


class TestErrors:
    def test_of_models_and_sizes(self):
        plain = functools.partial(create_model, "vit", **TINY)
        with pytest.raises(ValueError, match="whose calls choose the patch size.*given ViT"):
            FlexiClassification(Classification(plain), (2, 4)).build_model()
        with pytest.raises(ValueError, match="patch size 3 .* does not divide .* 8x8"):
            flexi(patch_sizes=(2, 3)).build_model()

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"patch_sizes": ()}, "at least one size"),
            ({"patch_sizes": (2, 2)}, "none twice; given"),
            ({"weights": (1, 2)}, "must be 3 numbers from 0 up"),
            ({"weights": (0, 0, 0)}, "not all 0"),
            ({"metric": "accuracy_patch16"}, "not evaluated; the sizes are 2, 4, 8"),
        ],
    )
    def test_of_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            flexi(**settings)


def test_gin_composes_it_with_distillation():
    configuration.parse(
        [],
        [
            "FlexiClassification.task = @KnowledgeDistillation()",
            "FlexiClassification.patch_sizes = (2, 4)",
            "KnowledgeDistillation.model = @student/create_model",
            "KnowledgeDistillation.teacher = @Teacher()",
            "Teacher.model = @teacher/create_model",
            "Teacher.weights = 'teacher.npz'",
            "student/create_model.name = 'flexivit'",
            "teacher/create_model.name = 'vit_b16'",
        ],
    )
    try:
        task = configuration.bound("FlexiClassification")()
    finally:
        gin.clear_config()
    assert isinstance(task._task, KnowledgeDistillation)
    assert task.facts() == {"teacher": "not loaded", "patches": "2 (50%), 4 (50%)"}
