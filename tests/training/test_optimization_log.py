"""A run tells which weights have which rate and decay, and logs the rate of every group."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from vit_tf.training import Estimator, Optimization, RunConfig
from vit_tf.training.optimizers import ScalingAdafactor
from vit_tf.training.schedules import linear
from vit_tf.training.tables import layerwise_decay


def texts(folder) -> str:
    """All texts that a run wrote to TensorBoard."""
    return "\n".join(
        part.decode()
        for file in (folder / "tensorboard" / "train").iterdir()
        for record in tf.data.TFRecordDataset(str(file))
        for value in tf.compat.v1.Event.FromString(record.numpy()).summary.value
        for part in tf.make_ndarray(value.tensor).flat
        if value.metadata.plugin_data.plugin_name == "text"
    )


def test_a_run_tells_its_tables_and_logs_the_rate_of_every_group(
    make_task, train_input, tmp_path, capsys
):
    optimization = Optimization(
        learning_rate=0.002,
        reference_batch=128,  # twice the batch of the data
        schedule=functools.partial(linear, warmup="1 epoch"),
        learning_rate_table=(("head/.*", 10.0), (".*", 1.0)),
    )
    config = RunConfig(steps=30, strategy="cpu", optimization=optimization)
    values = Estimator(make_task(), tmp_path, config).train(train_input, steps=2)
    # 1,437 digits in batches of 64: the warm-up of an epoch has 22 steps, of which 2 are done.
    assert values["learning_rate"] == pytest.approx(0.001 * 2 / 22)
    assert values["learning_rate/rest"] == pytest.approx(0.001 * 2 / 22)
    assert values["learning_rate/head"] == pytest.approx(0.01 * 2 / 22)
    said = optimization.describe()
    assert said.count("\n") == 7 and "learning rate, x 0.001\n  10  head/.*   2 weights" in said
    assert said in capsys.readouterr().out
    assert said.replace("\n", "\n    ") in texts(tmp_path)


def test_a_run_with_bfloat16_slots_and_frozen_weights_resumes_to_the_bit(
    make_task, train_input, tmp_path
):
    def train(folder, steps):
        optimization = Optimization(
            functools.partial(ScalingAdafactor, weight_decay=0.1),
            schedule=functools.partial(linear, warmup=2),
            learning_rate_table=layerwise_decay(0.5),
            trainable_table=(("patch_embedding/.*", False), (".*", True)),
            decay_scaled_by="schedule",
        )
        config = RunConfig(
            steps=6, checkpoint_interval=3, strategy="cpu", optimization=optimization
        )
        estimator = Estimator(make_task(), folder, config)
        before = estimator.model.get_layer("patch_embedding").get_weights()
        values = estimator.train(train_input, steps=steps)
        for frozen, now in zip(
            before, estimator.model.get_layer("patch_embedding").get_weights(), strict=True
        ):
            np.testing.assert_array_equal(frozen, now)
        return values, estimator.model.get_weights()

    whole_values, whole = train(tmp_path / "whole", 6)
    train(tmp_path / "halves", 3)
    values, halves = train(tmp_path / "halves", 6)
    for expected, found in zip(whole, halves, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert values["loss"] == whole_values["loss"]
    assert {name for name in values if name.startswith("learning_rate/")} == {
        "learning_rate/patch_embedding_positions",
        "learning_rate/block00",
        "learning_rate/block01",
        "learning_rate/encoder_norm_head",
    }
