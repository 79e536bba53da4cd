"""What a person gets who asks for something that cannot be: one clear message."""

import functools
import json
import os
import re
import resource
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.data.input import Input
from vit_tf.data.tfds_source import TFDSSource
from vit_tf.training import Classification, Estimator, Optimization, RunConfig
from vit_tf.training.schedules import constant


def test_model_dir_of_another_model(make_estimator, train_input, tmp_path):
    make_estimator(tmp_path / "run", steps=1).train(train_input)
    other = make_estimator(tmp_path / "run", model={"mlp_dim": 96}, steps=1)
    message = (
        rf"model_dir {tmp_path}/run belongs to another model: .*has shape \[64\] there and "
        r"\[96\] here.*Give this model a --model_dir of its own, or delete that one"
    )
    with pytest.raises(ValueError, match=message):
        other.train(train_input)


@pytest.mark.parametrize(
    ("text", "missing"), [('{"weights": {}}', "config"), ('{"weig', "JSON"), ("7", "JSON")]
)
def test_a_damaged_record_of_the_model_is_named(make_estimator, tmp_path, text, missing):
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(ValueError, match=rf"model\.json is damaged.*it has no {missing}\. Bring"):
        make_estimator(tmp_path, steps=1).model  # noqa: B018


def test_nan_loss_stops_and_names_the_last_good_checkpoint(make_estimator, tmp_path):
    bad_from = 6 * 16  # the seventh batch

    def input_fn():
        images = np.zeros((160, 8, 8, 3), np.float32)
        images[bad_from:] = np.nan
        dataset = tf.data.Dataset.from_tensor_slices((images, np.arange(160) % 10))
        return dataset.repeat().batch(16, drop_remainder=True)

    settings = dict(steps=20, steps_per_loop=2, checkpoint_interval=4)
    estimator = make_estimator(tmp_path / "run", **settings)
    message = (
        r"the loss became nan between steps 7 and 8\. The last good checkpoint is "
        r".*/ckpt-4\. Lower the learning rate"
    )
    with pytest.raises(FloatingPointError, match=message):
        estimator.train(input_fn)
    kept = tf.train.load_checkpoint(str(tmp_path / "run/checkpoints/ckpt-4"))
    for name, dtype in kept.get_variable_to_dtype_map().items():
        if dtype.is_floating:
            assert np.isfinite(kept.get_tensor(name)).all()
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 6]


class ExplodingGradient(Classification):
    """Its loss stays finite while the gradient of it does not."""

    def train_values(self, model, batch):
        values = super().train_values(model, batch)
        zero = tf.reduce_sum(model.trainable_weights[-1].value) * 0.0
        return values | {"loss": values["loss"] + tf.sqrt(zero)}  # d sqrt(0) is infinite


def test_a_gradient_that_is_no_number_is_stopped_before_a_checkpoint_is_made_of_it(
    make_estimator, train_input, tmp_path
):
    estimator = make_estimator(tmp_path / "run", steps=2, steps_per_loop=1, checkpoint_interval=1)
    estimator.task.__class__ = ExplodingGradient
    with pytest.raises(FloatingPointError, match=r"the gradient norm became (nan|inf) .*No check"):
        estimator.train(train_input)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_evaluation_that_is_no_number_is_never_the_best(make_estimator, tmp_path):
    estimator = make_estimator(tmp_path / "run")
    kept = [
        estimator.model_dir.keep_if_best(estimator.model, "accuracy", value, step)
        for step, value in enumerate([0.5, float("nan"), 0.1, 0.6])
    ]
    assert kept == [True, False, False, True]
    assert sorted(os.listdir(tmp_path / "run" / "best")) == [
        "best-3.data-00000-of-00001",
        "best-3.index",
        "best.json",
    ]


def test_a_model_of_the_same_shapes_but_other_settings(make_estimator, train_input, tmp_path):
    make_estimator(tmp_path / "run", steps=1).train(train_input)
    other = make_estimator(tmp_path / "run", model={"num_heads": 8}, steps=1)
    with pytest.raises(ValueError, match="another model: num_heads is 2 there and 8 here"):
        other.train(train_input)
    # Regularisation is not part of what a model is.
    make_estimator(tmp_path / "run", model={"dropout": 0.1}, steps=2).train(train_input)


def test_another_optimizer_or_a_damaged_checkpoint(make_task, train_input, eval_input, tmp_path):
    def estimator(optimizer):
        return Estimator(
            make_task(),
            tmp_path / "run",
            RunConfig(steps=1, strategy="cpu", optimization=Optimization(optimizer)),
        )

    estimator(keras.optimizers.AdamW).train(train_input)
    other = estimator(functools.partial(keras.optimizers.SGD, momentum=0.9))
    with pytest.raises(ValueError, match=r"cannot go on from .*ckpt-1: .*If the optimizer was"):
        other.train(train_input)
    (data,) = (tmp_path / "run" / "checkpoints").glob("*.data*")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cannot load .*ckpt-1 into this model"):
        estimator(keras.optimizers.AdamW).evaluate(eval_input)


def test_images_of_another_size_than_the_models(make_estimator, digits_dir):
    large = Input(
        TFDSSource(digits_dir, "test"),
        "decode|resize(16)|value_range(-1, 1)",
        batch_size=10,
        training=False,
    )
    message = r"the input's images are 16x16x3 after 'decode\|resize.*the model takes 8x8x3"
    with pytest.raises(ValueError, match=message):
        make_estimator().train(large)


def test_training_data_that_ends(make_estimator):
    def input_fn():
        images, labels = np.zeros((32, 8, 8, 3), np.float32), np.zeros(32, np.int64)
        return tf.data.Dataset.from_tensor_slices((images, labels)).batch(16, drop_remainder=True)

    with pytest.raises(ValueError, match=r"the training data came to an end; .*repeat\(\)"):
        make_estimator(steps=5).train(input_fn)


def test_a_constant_rate_follows_the_configuration_on_resume(make_task, train_input, tmp_path):
    for steps, rate in ((1, 1e-3), (2, 5e-4)):
        optimization = Optimization(learning_rate=rate, schedule=constant)
        config = RunConfig(steps=steps, strategy="cpu", optimization=optimization)
        values = Estimator(make_task(), tmp_path / "run", config).train(train_input)
        assert values["learning_rate"] == pytest.approx(rate)


def test_a_precision_is_that_of_its_estimator_alone(make_estimator, tmp_path):
    first = make_estimator(tmp_path / "a", precision="mixed_bfloat16")
    second = make_estimator(tmp_path / "b")
    assert first.model.compute_dtype == "bfloat16"
    assert second.model.compute_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_more_classes_than_the_head_has(make_estimator, train_input):
    message = "the data has 10 classes and the model's head 4; set create_model.num_classes = 10"
    with pytest.raises(ValueError, match=message):
        make_estimator(model={"num_classes": 4}).train(train_input)


def test_a_model_without_a_head(make_estimator, train_input):
    with pytest.raises(ValueError, match=r"set create_model\.num_classes to the number of classes"):
        make_estimator(model={"num_classes": 0}).train(train_input)


def test_a_batch_that_replicas_do_not_divide(make_estimator, digits_dir):
    odd = Input(
        TFDSSource(digits_dir, "train"),
        "decode|resize(8)|value_range(-1, 1)",
        batch_size=33,
        training=True,
    )
    with pytest.raises(ValueError, match=r"33.* 2 replicas.*32 or 34"):
        make_estimator(strategy="mirrored").train(odd)


def test_a_full_disk_keeps_the_checkpoint_before(make_estimator, train_input, tmp_path):
    run = tmp_path / "run"
    settings = dict(steps=4, steps_per_loop=2, checkpoint_interval=2)
    make_estimator(run, **settings).train(train_input, steps=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A file that may not grow over 64 kB fails like one on a full disk. Python ignores SIGXFSZ.
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    try:
        message = (
            rf"could not write checkpoint ckpt-4 to {run}/checkpoints: .*; \d+ MB are free\. Of "
            r"the checkpoints before, ckpt-2 is intact\. Make room and start the same command"
        )
        with pytest.raises(OSError, match=message):
            make_estimator(run, **settings).train(train_input)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    left = {name for name in os.listdir(run / "checkpoints") if "4" in name}
    assert not left
    make_estimator(run, **settings).train(train_input)
    assert tf.train.latest_checkpoint(str(run / "checkpoints")).endswith("ckpt-4")


def test_a_model_dir_that_cannot_be_written(make_estimator, train_input):
    message = r"cannot write to model_dir /proc/run: .*Choose another --model_dir"
    with pytest.raises(OSError, match=message):
        make_estimator("/proc/run").train(train_input)


def test_evaluating_what_was_never_trained_leaves_no_folder(make_estimator, eval_input, tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint 'latest' in .*; there: none"):
        make_estimator(tmp_path / "typo").evaluate(eval_input)
    assert not (tmp_path / "typo").exists()


def test_corrupt_records_are_named_while_training(make_estimator, tmp_path, digits_dir):
    shard = _copy_of_train(digits_dir, tmp_path)
    contents = bytearray(shard.read_bytes())
    contents[len(contents) // 2] ^= 0xFF
    shard.write_bytes(contents)
    damaged = Input(
        TFDSSource(str(tmp_path / "digits"), "train"),
        "decode|resize(8)|value_range(-1, 1)",
        batch_size=64,
        training=True,
    )
    message = rf"{re.escape(str(shard))} record \d+.*corrupt.*on_bad_record = 'skip'"
    with pytest.raises(ValueError, match=message):
        make_estimator().train(damaged)


def test_skipped_records_are_counted_in_the_log(make_estimator, tmp_path, digits_dir, eval_input):
    shard = _copy_of_train(digits_dir, tmp_path)
    records = [record.numpy() for record in tf.data.TFRecordDataset(str(shard))]
    example = tf.train.Example.FromString(records[5])
    example.features.feature["image"].bytes_list.value[0] = b"not an image"
    records[5] = example.SerializeToString()
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for record in records:
            writer.write(record)
    damaged = Input(
        TFDSSource(str(tmp_path / "digits"), "train"),
        "decode|resize(8)|value_range(-1, 1)",
        batch_size=1437,
        training=True,
        on_bad_record="skip",
    )
    values = make_estimator(steps=1).train(damaged)
    assert values["skipped_examples"] == 1
    assert list(damaged.skipped) == [f"{shard} record 5"]


def _copy_of_train(digits_dir, tmp_path):
    """Copies the digits; returns the first training shard."""
    shutil.copytree(digits_dir, tmp_path / "digits")
    return sorted((tmp_path / "digits").glob("*train*.tfrecord*"))[0]


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(steps=1, epochs=1.0), "give RunConfig.steps or RunConfig.epochs, not both"),
        (dict(steps=0), "RunConfig.steps must be positive; given 0"),
        (dict(precision="fp16"), "RunConfig.precision must be one of float32, mixed_bfloat16"),
    ],
)
def test_run_config(settings, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**settings)


def test_a_loop_that_does_not_divide_the_interval():
    with pytest.raises(ValueError, match="steps_per_loop 7 does not divide .*eval_interval 20"):
        RunConfig(steps=100, steps_per_loop=7, eval_interval=20).intervals(100)


def test_length_that_is_not_known():
    with pytest.raises(ValueError, match=r"set RunConfig\.steps or RunConfig\.epochs"):
        RunConfig().total_steps(10.0)
    with pytest.raises(ValueError, match="set RunConfig.steps instead"):
        RunConfig(epochs=1.0).total_steps(None)


def test_unknown_loss():
    with pytest.raises(
        ValueError, match="softmax, sigmoid, sigmoid_mean, or a Keras loss; given 'hinge'"
    ):
        Classification(lambda: None, loss="hinge")
