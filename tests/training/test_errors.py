"""What a person gets who asks for something that cannot be: one clear message."""

import json
import os
import re
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf

from vit_tf.data.input import Input
from vit_tf.data.sources import TFDSSource
from vit_tf.training import Classification, RunConfig
from vit_tf.training.strategies import create_strategy


def test_model_dir_of_another_model(make_estimator, train_input, tmp_path):
    make_estimator(tmp_path / "run", steps=1).train(train_input)
    other = make_estimator(tmp_path / "run", model={"mlp_dim": 96}, steps=1)
    message = (
        rf"model_dir {tmp_path}/run belongs to another model: .*has shape \[64\] there and "
        r"\[96\] here.*Give this model a --model_dir of its own, or delete that one"
    )
    with pytest.raises(ValueError, match=message):
        other.train(train_input)


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
    with pytest.raises(ValueError, match="loss must be one of softmax, sigmoid; given 'hinge'"):
        Classification(lambda: None, loss="hinge")


def test_strategies(monkeypatch):
    with pytest.raises(ValueError, match="strategy must be one of auto, cpu, mirrored"):
        create_strategy("gpus")
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match="needs the environment variable TF_CONFIG"):
        create_strategy("multi_worker")
    with pytest.raises(RuntimeError, match="must be set before TensorFlow starts"):
        tf.constant(0)
        create_strategy("cpu", virtual_cpus=3)


def test_a_tpu_that_does_not_answer():
    with pytest.raises(ValueError, match="no TPU answers at 'local'.*RunConfig.strategy = 'auto'"):
        create_strategy("tpu")
