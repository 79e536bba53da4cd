"""The classification task with models that are not a plain ViT, and with mixed images."""

import functools

import gin
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.data import Mixing
from vit_tf.models import create_model
from vit_tf.training import Classification, Estimator, Optimization, RunConfig, configuration
from vit_tf.training.randomness import batch_statistics

SIZES = dict(image_size=8, width=8, depth=1, num_heads=2, mlp_dim=8, num_classes=4)
make_distilled = functools.partial(create_model, "deit_distilled", patch_size=4, **SIZES)
make_convolutional = functools.partial(create_model, "vit_c", stem_widths=(4,), **SIZES)

IMAGES = np.random.default_rng(0).normal(2, 3, (32, 8, 8, 3)).astype(np.float32)
LABELS = np.arange(32) % 4


def batches_of(size):
    """An endless input of so many images for each replica."""

    def input_fn():
        dataset = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS))
        return dataset.repeat().batch(size, drop_remainder=True)

    return input_fn


class TestSeveralHeads:
    def test_loss_is_the_mean_of_the_losses_of_the_heads(self):
        task = Classification(make_distilled, label_smoothing=0.1)
        model = task.build_model()
        batch = {"image": tf.constant(IMAGES), "label": tf.constant(LABELS)}
        targets = np.eye(4)[LABELS] * 0.9 + 0.1 / 4
        losses = [
            tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            for logits in model(IMAGES, training=True)
        ]
        values = task.train_values(model, batch)
        np.testing.assert_allclose(values["loss"], np.mean(losses, axis=0), rtol=1e-5)

    def test_accuracy_is_that_of_the_answer_outside_of_training(self):
        task = Classification(make_distilled)
        model = task.build_model()
        model.head_dist.kernel.assign(model.head_dist.kernel * 30)  # so that the heads disagree
        batch = {"image": tf.constant(IMAGES), "label": tf.constant(LABELS)}
        trained, evaluated = task.train_values(model, batch), task.eval_values(model, batch)
        np.testing.assert_array_equal(trained["accuracy"], evaluated["accuracy"])

    def test_both_heads_learn(self, tmp_path):
        estimator = Estimator(
            Classification(make_distilled), tmp_path, RunConfig(strategy="cpu", steps=2)
        )
        before = [estimator.model.head.get_weights()[0], estimator.model.head_dist.get_weights()[0]]
        estimator.train(batches_of(8))
        after = [estimator.model.head.get_weights()[0], estimator.model.head_dist.get_weights()[0]]
        for old, new in zip(before, after, strict=True):
            assert not np.allclose(old, new)


class TestBatchStatistics:
    def test_are_learned_saved_and_restored(self, tmp_path):
        def estimator():
            config = RunConfig(strategy="cpu", steps=3, eval_interval=3)
            return Estimator(Classification(make_convolutional), tmp_path, config)

        trained = estimator()
        fresh = [value.numpy() for value in batch_statistics(trained.model)]
        trained.train(batches_of(8))
        learned = [value.numpy() for value in batch_statistics(trained.model)]
        assert len(learned) == 2  # mean and variance
        assert not any(np.allclose(*pair) for pair in zip(fresh, learned, strict=True))

        other = estimator()
        other.evaluate(lambda: tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(8))
        for old, new in zip(learned, batch_statistics(other.model), strict=True):
            np.testing.assert_array_equal(old, new.numpy())

    def test_of_replicas_are_those_of_one_that_sees_all_images(self, tmp_path):
        frozen = Optimization(schedule=0.0)

        def moving_mean(strategy, batch_size):
            config = RunConfig(
                strategy=strategy,
                steps=4,
                eval_interval=4,
                optimization=frozen,
                jit_compile=strategy == "mirrored",
            )
            task = Classification(make_convolutional)
            estimator = Estimator(task, tmp_path / strategy, config)
            estimator.train(batches_of(batch_size))
            return batch_statistics(estimator.model)[0].value

        alone = moving_mean("cpu", 32)
        first, second = moving_mean("mirrored", 16).values
        np.testing.assert_array_equal(first.numpy(), second.numpy())
        np.testing.assert_allclose(first.numpy(), alone.numpy(), rtol=1e-4)


class TestMixing:
    MIXING = Mixing(mixup_alpha=0.8, mode="elementwise")
    make_model = staticmethod(functools.partial(create_model, "vit", patch_size=4, **SIZES))

    def batch(self):
        return {
            "image": tf.constant(IMAGES),
            "label": tf.constant(LABELS),
            "mask": tf.ones([len(LABELS)]),
        }

    def augmented(self, **settings):
        """A task with mixing, its model, and a batch that it has mixed."""
        task = Classification(self.make_model, mixing=self.MIXING, **settings)
        model = task.build_model()
        model.head.kernel.assign(tf.random.stateless_normal(model.head.kernel.shape, [1, 2]))
        return task, model, task.augment(model, self.batch(), tf.constant([3, 4]))

    @pytest.mark.parametrize("smoothing", ["0", "0.1"])
    def test_smoothed_targets_are_the_references(self, shared, smoothing):
        stored = np.load(shared / "golden" / "behaviour" / "mixup_cutmix" / "io.npz")
        sizes = {**SIZES, "image_size": 16, "num_classes": 5}
        task = Classification(
            functools.partial(create_model, "vit", patch_size=8, **sizes),
            label_smoothing=float(smoothing),
            mixing=Mixing(mixup_alpha=1.0, probability=0.0),
        )
        names = {"image": "images", "label": "labels"}
        batch = {name: tf.constant(stored[key]) for name, key in names.items()}
        batch["mask"] = tf.ones([6])
        targets = task.augment(task.build_model(), batch, tf.constant([0, 0]))["targets"]
        expected = stored[f"targets_without_mixing/smoothing{smoothing}"]
        np.testing.assert_allclose(targets, expected, rtol=0, atol=1e-6)

    def test_labels_are_smoothed_once(self):
        _, _, plain = self.augmented()
        _, _, smooth = self.augmented(label_smoothing=0.1)
        np.testing.assert_allclose(smooth["targets"], plain["targets"] * 0.9 + 0.1 / 4, atol=1e-6)

    def test_softmax_loss_is_the_cross_entropy_against_the_mixed_targets(self):
        task, model, batch = self.augmented(label_smoothing=0.1)
        values = task.train_values(model, batch)
        log_probabilities = tf.nn.log_softmax(model(batch["image"], training=True))
        expected = -np.sum(batch["targets"] * log_probabilities, axis=-1)
        np.testing.assert_allclose(values["loss"], expected, rtol=1e-5)

    @pytest.mark.parametrize(("loss", "reduce"), [("sigmoid", np.sum), ("sigmoid_mean", np.mean)])
    @pytest.mark.parametrize("threshold", [None, 0.0, 0.2])
    def test_sigmoid_losses_take_soft_or_binarised_targets(self, loss, reduce, threshold):
        task, model, batch = self.augmented(loss=loss, target_threshold=threshold)
        targets = batch["targets"].numpy()
        if threshold is not None:
            targets = np.where(targets > threshold, 1.0, 0.0)
        p = tf.nn.sigmoid(model(batch["image"], training=True)).numpy()
        expected = reduce(-targets * np.log(p) - (1 - targets) * np.log(1 - p), axis=-1)
        values = task.train_values(model, batch)
        np.testing.assert_allclose(values["loss"], expected, rtol=1e-4)

    def test_accuracy_is_that_of_the_dominant_label(self):
        task, model, batch = self.augmented()
        said = np.argmax(model(batch["image"], training=True), axis=-1)
        dominant = np.argmax(batch["targets"], axis=-1)
        assert (dominant != LABELS).any()
        values = task.train_values(model, batch)
        np.testing.assert_array_equal(values["accuracy"], said == dominant)

    def test_evaluation_is_not_touched(self):
        task, model, _ = self.augmented()
        plain = Classification(self.make_model)
        batch = self.batch()
        for name, value in task.eval_values(model, batch).items():
            np.testing.assert_array_equal(value, plain.eval_values(model, batch)[name])

    def test_gin_names_it(self):
        configuration.parse(
            [],
            [
                "Classification.model = @create_model",
                "Classification.mixing = @Mixing()",
                "Mixing.mixup_alpha = 0.2",
                "Mixing.style = 'big_vision'",
            ],
        )
        try:
            facts = configuration.bound("Classification")().facts()
        finally:
            gin.clear_config()
        assert facts == {"mixing": "mixup 0.2, probability 1, by batch, big_vision style"}

    def test_thresholds_that_cannot_work_are_refused(self):
        with pytest.raises(ValueError, match="target_threshold is for loss 'sigmoid'"):
            Classification(self.make_model, target_threshold=0.0)
        with pytest.raises(ValueError, match=r"target_threshold must lie in \[0, 1\); given 1"):
            Classification(self.make_model, loss="sigmoid", target_threshold=1.0)
        task = Classification(
            self.make_model, loss="sigmoid", label_smoothing=0.1, target_threshold=0.0
        )
        with pytest.raises(ValueError, match="set Classification.label_smoothing = 0"):
            task.build_model()
