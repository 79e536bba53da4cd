"""A run tells which weights have which rate and decay, and logs the rate of every group."""

import functools

import pytest
import tensorflow as tf

from vit_tf.training import Estimator, Optimization, RunConfig
from vit_tf.training.schedules import linear


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
