"""Models with batch norms in training: whose examples count, what is kept of their statistics."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from processes import tensors
from stepping import BATCH, Regression, Steps, batches

from vit_tf.models import create_model
from vit_tf.training import Classification, Ema, Estimator, Optimization, RunConfig
from vit_tf.training.batch_norms import prepare_batch_norms

EPSILON = 1e-3  # of the norm in `Regression`, whose momentum is 0.5
SMALL = {"image_size": 16, "num_classes": 10, "depth": 1, "num_heads": (1, 2), "width": (4, 8)}
FAMILIES = {
    "levit": {**SMALL, "stem_widths": (2, 4), "key_dim": 4, "down_num_heads": 1},
    "cvt": {**SMALL, "patch_size": 3, "patch_stride": 2, "patch_padding": 1},
    "vit_c": {**SMALL, "stem_widths": (2, 4), "num_heads": 2, "width": 8, "mlp_dim": 8},
    "cmt": {**SMALL, "stem_width": 4, "key_value_reduction": (2, 1), "representation_size": 6},
}


def statistics(steps):
    """Moving mean and variance of the norm, which must be the same on all replicas."""
    norm, found = steps.model.get_layer("norm"), []
    for weight in (norm.moving_mean, norm.moving_variance):
        first, *others = steps.strategy.experimental_local_results(weight.value)
        for other in others:
            np.testing.assert_array_equal(other.numpy(), first.numpy(), err_msg=weight.path)
        found.append(first.numpy())
    return found


class TestReplicas:
    def test_each_normalises_its_own_examples_and_their_statistics_are_averaged(self):
        steps = Steps(Regression(True), "mirrored")
        (batch,) = batches(1)
        steps.run(batch)
        steps.step.average_statistics()
        shares = batch["image"].reshape(2, BATCH // 2, 3)
        mean, variance = statistics(steps)
        np.testing.assert_allclose(mean, 0.5 * batch["image"].mean(0), atol=1e-6)
        np.testing.assert_allclose(variance, 0.5 + 0.5 * shares.var(1).mean(0), atol=1e-6)

    def test_synchronized_they_do_what_one_replica_does(self):
        runs = {
            name: Steps(Regression(True), strategy, rate=0.3, sync_batch_norm=sync)
            for name, strategy, sync in (
                ("one", "cpu", False),
                ("synchronized", "mirrored", True),
                ("apart", "mirrored", False),
            )
        }
        for batch in batches(3):
            ends = {name: steps.run(batch) for name, steps in runs.items()}
        for one, together in zip(ends["one"], ends["synchronized"], strict=True):
            np.testing.assert_allclose(together, one, rtol=1e-4, atol=1e-5)
        kernels = [ends[name][-1] for name in ("one", "apart")]
        assert not np.allclose(*kernels, atol=1e-2)
        statistics(runs["synchronized"])  # equal without having been averaged

    def test_synchronized_micro_batches_are_those_of_all_replicas(self):
        settings = {"accumulation_steps": 2, "rate": 0.3}
        one = Steps(Regression(True), "cpu", **settings)
        together = Steps(Regression(True), "mirrored", sync_batch_norm=True, **settings)
        for batch in batches(3):
            # The first micro-batches of the replicas, then the second ones.
            order = [0, 2, 1, 3]
            expected = one.run({name: value[order] for name, value in batch.items()})
            for ours, theirs in zip(together.run(batch), expected, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("family", "remat"),
        [
            ("cvt", "blocks"),
            pytest.param("cmt", "mlp", marks=pytest.mark.slow),
            pytest.param("levit", "blocks", marks=pytest.mark.slow),
        ],
    )
    def test_synchronized_families_train_as_on_one_replica(self, family, remat):
        """With activations that are computed again, and with them the exchange of statistics."""
        random = np.random.default_rng(0)
        batch = {
            "image": random.normal(size=(BATCH, 16, 16, 3)).astype(np.float32),
            "label": np.arange(BATCH),
            "mask": np.ones(BATCH, np.float32),
        }

        def trained(strategy, **config):
            model = functools.partial(create_model, family, **FAMILIES[family])
            tf.keras.utils.set_random_seed(0)
            steps = Steps(Classification(model), strategy, rate=0.01, **config)
            steps.run(batch)
            weights = steps.run(batch)
            return {w.path: value for w, value in zip(steps.model.weights, weights, strict=True)}

        one, together = trained("cpu"), trained("mirrored", sync_batch_norm=True, remat=remat)
        for path, value in one.items():
            np.testing.assert_allclose(together[path], value, rtol=1e-3, atol=2e-4, err_msg=path)

    def test_what_cannot_be_synchronized_is_refused(self):
        with pytest.raises(ValueError, match="sync_batch_norm needs RunConfig.jit_compile = False"):
            Steps(Regression(True), "mirrored", sync_batch_norm=True, jit_compile=True)
        several = Regression(True)
        several.forms = 2
        with pytest.raises(ValueError, match="one of several forms"):
            Steps(several, "mirrored", sync_batch_norm=True)

    def test_one_replica_and_models_without_norms_have_nothing_to_synchronize(self):
        for task, strategy in ((Regression(True), "cpu"), (Regression(), "mirrored")):
            steps = Steps(task, strategy, sync_batch_norm=True, jit_compile=True)
            assert all(np.isfinite(weight).all() for weight in steps.run(batches(1)[0]))


class TestMicroBatches:
    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_each_moves_the_statistics_in_turn(self, jit_compile):
        steps = Steps(Regression(True), accumulation_steps=2, jit_compile=jit_compile)
        (batch,) = batches(1)
        steps.run(batch)
        mean, variance = np.zeros(3), np.ones(3)
        for part in np.split(batch["image"], 2):
            mean, variance = (mean + part.mean(0)) / 2, (variance + part.var(0)) / 2
        for ours, expected in zip(statistics(steps), (mean, variance), strict=True):
            np.testing.assert_allclose(ours, expected, atol=1e-6)


class FrozenNorm(Regression):
    """Neither gamma nor beta is trained."""

    def build_model(self):
        model = super().build_model()
        for weight in model.get_layer("norm").trainable_weights:
            weight.trainable = False
        model.get_layer("norm").moving_mean.assign([1.0, -1.0, 0.5])
        model.get_layer("norm").moving_variance.assign([4.0, 1.0, 0.25])
        return model


class TestFrozenNorms:
    def test_train_as_they_are_evaluated(self):
        steps = Steps(FrozenNorm(True), rate=0.1)
        (batch,) = batches(1)
        before = statistics(steps)
        kernel = np.asarray(steps.model.get_layer("head").kernel, np.float64)
        steps.run(batch)
        normalized = (batch["image"] - before[0]) / np.sqrt(before[1] + EPSILON)
        error = normalized @ kernel[:, 0] - batch["label"]
        expected = kernel[:, 0] - 0.1 * normalized.T @ error / BATCH
        np.testing.assert_allclose(steps.model.get_layer("head").kernel[:, 0], expected, atol=1e-5)
        for ours, old in zip(statistics(steps), before, strict=True):
            np.testing.assert_array_equal(ours, old)

    def test_learn_again_once_they_are_trained(self):
        model = FrozenNorm(True).build_model()
        norm = model.get_layer("norm")
        prepare_batch_norms(model, synchronized=False)
        assert not norm.trainable
        norm.gamma.trainable = True
        prepare_batch_norms(model, synchronized=False)
        assert norm.trainable and norm.gamma.trainable and not norm.beta.trainable

    def test_are_frozen_by_the_table_of_a_run(self, tmp_path, train_input):
        table = (("head.*", True), (".*", False))
        config = RunConfig(
            strategy="cpu",
            steps=3,
            optimization=Optimization(trainable_table=table, learning_rate=0.1),
        )
        model = functools.partial(create_model, "cvt", **{**FAMILIES["cvt"], "image_size": 8})
        estimator = Estimator(Classification(model), tmp_path, config)
        before = {weight.path: weight.numpy() for weight in estimator.model.weights}
        estimator.train(train_input)
        changed = [w.path for w in estimator.model.weights if (w.numpy() != before[w.path]).any()]
        assert changed == ["cvt/head/kernel", "cvt/head/bias"]


def test_averages_of_statistics_are_computed_with():
    steps = Steps(Regression(True), ema=Ema(decay=0.5), rate=0.3)
    for batch in batches(3):
        steps.run(batch)
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    averages = {name: steps.step.averages.variables[f"norm/{name}"].numpy() for name in names}
    raw = steps.model.get_layer("norm").moving_mean.numpy()
    assert not np.allclose(averages["moving_mean"], raw, atol=1e-3)
    images = batch["image"]
    with steps.step.averages.in_place_of_weights():
        outputs = np.asarray(steps.model(images, training=False))
    scale = averages["gamma"] / np.sqrt(averages["moving_variance"] + EPSILON)
    normalized = (images - averages["moving_mean"]) * scale + averages["beta"]
    kernel = next(v for n, v in steps.step.averages.variables.items() if n.endswith("kernel"))
    np.testing.assert_allclose(outputs, normalized @ kernel.numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["cpu", "mirrored"])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(strategy, tmp_path, train_input):
    """With averages, micro-batches and dropout; on a CPU to the last bit."""

    def train(folder, steps):
        config = RunConfig(
            strategy=strategy,
            steps=4,
            checkpoint_interval=2,
            accumulation_steps=2,
            sync_batch_norm=True,
            ema=Ema(decay=0.9),
            optimization=Optimization(learning_rate=3e-3),
        )
        settings = {**FAMILIES["vit_c"], "image_size": 8, "dropout": 0.2}
        task = Classification(functools.partial(create_model, "vit_c", **settings))
        Estimator(task, tmp_path / folder, config).train(train_input, steps=steps)

    train("whole", None)
    train("stopped", 2)
    train("stopped", None)
    whole, stopped = (tensors(tmp_path / folder, 4) for folder in ("whole", "stopped"))
    moving = [name for name in whole if "moving_variance" in name]
    assert {name.partition("/")[0] for name in moving} == {"model", "ema"}
    assert sorted(whole) == sorted(stopped)
    for name, value in whole.items():
        if strategy == "cpu":
            np.testing.assert_array_equal(stopped[name], value, err_msg=name)
        else:
            np.testing.assert_allclose(stopped[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
