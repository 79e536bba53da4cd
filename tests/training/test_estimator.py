"""The Estimator on real digits: it learns, resumes bit for bit, and counts every example."""

import functools
import json
import os
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import assert_same_run, rows, tensors

from vit_tf.checkpoints import create_model, describe_checkpoint, load_checkpoint
from vit_tf.data.input import Input
from vit_tf.data.mixing import Mixing
from vit_tf.data.tfds_source import TFDSSource
from vit_tf.training import Estimator, Optimization, RunConfig, train_run
from vit_tf.training.loop import TrainLoop
from vit_tf.training.schedules import cosine

MIXING = Mixing(mixup_alpha=0.8, cutmix_alpha=1.0, mode="elementwise")


@pytest.fixture(scope="module")
def trained(make_task, train_input, eval_input, tmp_path_factory):
    """A run of 300 steps with evaluation: the estimator, what it returned, and its folder."""
    model_dir = tmp_path_factory.mktemp("trained")
    optimization = Optimization(learning_rate=4e-3, schedule=functools.partial(cosine, warmup=20))
    config = RunConfig(steps=300, strategy="cpu", eval_interval=150, optimization=optimization)
    estimator = Estimator(make_task(), model_dir, config)
    return estimator, estimator.train_and_evaluate(train_input, eval_input), model_dir


def test_a_tiny_vit_learns_the_digits(trained):
    _, result, _ = trained
    assert result["accuracy"] > 0.75  # chance is 0.1


def test_a_tiny_vit_learns_the_digits_from_mixed_images(
    make_estimator, train_input, eval_input, capsys
):
    mixing = Mixing(mixup_alpha=0.8, cutmix_alpha=1.0)
    estimator = make_estimator(mixing=mixing, steps=300, peak=4e-3, eval_interval=300)
    result = estimator.train_and_evaluate(train_input, eval_input)
    assert result["accuracy"] > 0.6  # chance is 0.1
    assert f"mixing     {mixing}" in capsys.readouterr().out


def test_evaluation_counts_the_full_split(trained):
    _, result, _ = trained
    assert result["examples"] == 360  # three full batches of 100 and one padded


def test_model_dir_holds_all_state(trained):
    _, _, model_dir = trained
    assert {"checkpoints", "best", "tensorboard", "metrics.jsonl", "model.json"} <= set(
        os.listdir(model_dir)
    )
    assert [r["step"] for r in rows(model_dir) if r["kind"] == "eval"] == [150, 300]
    best = json.loads((model_dir / "best" / "best.json").read_text())
    evaluations = {r["step"]: r["accuracy"] for r in rows(model_dir) if r["kind"] == "eval"}
    assert best["value"] == max(evaluations.values())


def test_tensorboard_has_the_curves_of_training_and_evaluation(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for kind, tag in (("train", "learning_rate"), ("eval", "accuracy")):
        events = EventAccumulator(str(trained[2] / "tensorboard" / kind))
        events.Reload()
        assert tag in events.Tags()["tensors"]


def test_the_picture_of_predictions_is_a_file_and_in_tensorboard(trained, eval_input):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    estimator, _, model_dir = trained
    path = estimator.picture(eval_input)
    assert path == str(model_dir / "pictures" / "predictions.png")
    assert tf.io.decode_png(tf.io.read_file(path)).shape[1] > 1000
    events = EventAccumulator(str(model_dir / "tensorboard" / "eval"))
    events.Reload()
    assert "predictions" in events.Tags()["tensors"]


def test_a_fresh_estimator_evaluates_the_checkpoints_to_the_same_numbers(
    trained, make_estimator, eval_input
):
    _, result, model_dir = trained
    fresh = make_estimator(model_dir, steps=300)
    again = fresh.evaluate(eval_input)
    assert again == {key: result[key] for key in again}
    best = json.loads((model_dir / "best" / "best.json").read_text())
    assert fresh.evaluate(eval_input, checkpoint="best")["accuracy"] == best["value"]


def test_a_fresh_estimator_exports_what_was_evaluated(
    trained, make_estimator, eval_input, tmp_path
):
    _, result, model_dir = trained
    exported = make_estimator(model_dir, steps=300).export_saved_model(eval_input, tmp_path)
    serve = tf.saved_model.load(exported).signatures["serving_default"]
    records = list(eval_input.encoded())
    outputs = serve(image_bytes=tf.stack([record["image"] for record in records]))
    labels = [int(record["label"]) for record in records]
    assert np.mean(outputs["top_ids"].numpy()[:, 0] == labels) == pytest.approx(result["accuracy"])


def test_every_weight_of_the_model_and_the_optimizer_is_in_a_checkpoint(trained):
    estimator, _, model_dir = trained
    saved = tensors(model_dir, 300)
    weights = [name for name in saved if name.startswith("model/")]
    slots = [name for name in saved if name.startswith("optimizer/")]
    count = len(estimator.model.weights)
    assert len(weights) == count
    assert len(slots) == 2 * count + 1  # two moments a weight, and the step


def test_a_run_tells_its_model_and_loads_into_it_and_into_another(trained, eval_input):
    estimator, _, model_dir = trained
    (call,) = describe_checkpoint(str(model_dir)).calls
    model = create_model(call.name, **call.keywords)
    report = load_checkpoint(model, str(model_dir), strict=True)
    assert len(report.loaded) == len(model.weights)
    assert set(report.skipped.values()) == {"no array of weights"}
    batch = next(iter(eval_input()))
    rows = estimator.predict(eval_input)
    expected = np.stack(
        [row["probabilities"] for row, _ in zip(rows, batch["image"], strict=False)]
    )
    probabilities = keras.ops.softmax(model(batch["image"]))
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)

    larger = create_model(call.name, **{**call.keywords, "image_size": 16, "num_classes": 3})
    report = load_checkpoint(larger, str(model_dir), strict=True)
    assert "2 x 2 -> 4 x 4 positions" in report.resized["positions/table"]
    assert list(report.reset) == ["head/kernel", "head/bias"]


@pytest.mark.parametrize("batch_size", [1, 7, 360, 500])
def test_evaluation_does_not_depend_on_the_batch_size(trained, digits_dir, batch_size):
    estimator, result, _ = trained
    split = "test[:60]" if batch_size == 1 else "test"
    source = TFDSSource(digits_dir, split)
    values = estimator.evaluate(
        Input(source, "decode|resize(8)|value_range(-1, 1)", batch_size, training=False)
    )
    assert values["examples"] == source.num_examples
    if split == "test":
        assert values["accuracy"] == result["accuracy"]
        assert values["loss"] == pytest.approx(result["loss"], abs=1e-5)


def test_predict_yields_every_example_once(trained, eval_input):
    estimator, result, _ = trained
    predictions = list(estimator.predict(eval_input))
    assert [p["index"] for p in predictions] == list(range(360))
    right = np.mean([p["probabilities"].argmax() == p["label"] for p in predictions])
    assert right == pytest.approx(result["accuracy"], abs=1e-6)


def test_started_again_it_is_done_and_says_the_last_evaluation(trained, train_input, eval_input):
    estimator, result, model_dir = trained
    before = rows(model_dir)
    again = estimator.train_and_evaluate(train_input, eval_input)
    assert again["accuracy"] == result["accuracy"]
    assert rows(model_dir) == before


def test_continuous_eval_evaluates_what_it_finds_and_ends(trained, eval_input):
    estimator, result, model_dir = trained
    values = estimator.continuous_eval(eval_input, timeout=5)
    assert values["accuracy"] == result["accuracy"]
    last = (model_dir / "metrics_eval.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["step"] == 300


def test_continuous_eval_without_a_trainer_says_what_to_start(make_estimator, eval_input):
    with pytest.raises(FileNotFoundError, match="start training with the same --model_dir"):
        make_estimator().continuous_eval(eval_input, timeout=0.1)


def test_a_missing_checkpoint_is_named_with_those_that_are_there(trained, eval_input):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint '7' in .*; there: .*ckpt-300"):
        trained[0].evaluate(eval_input, checkpoint="7")


@pytest.mark.parametrize(
    ("jit_compile", "mixing"),
    [
        pytest.param(False, None, id="plain"),
        pytest.param(True, None, id="compiled", marks=pytest.mark.slow),
        pytest.param(True, MIXING, id="compiled and mixed", marks=pytest.mark.slow),
    ],
)
def test_a_run_in_two_parts_is_bit_for_bit_one_run(
    make_estimator, train_input, tmp_path, jit_compile, mixing
):
    # Dropout, stochastic depth and augmentation are on: their randomness resumes too.
    model = {"dropout": 0.1, "stochastic_depth": 0.2}
    settings = dict(model=model, mixing=mixing, steps=30, jit_compile=jit_compile)
    make_estimator(tmp_path / "whole", **settings).train(train_input)
    make_estimator(tmp_path / "parts", **settings).train(train_input, steps=9)
    make_estimator(tmp_path / "parts", **settings).train(train_input)
    assert_same_run(tmp_path / "whole", tmp_path / "parts", step=30)


def test_rows_after_the_checkpoint_are_written_again_not_twice(
    make_estimator, train_input, tmp_path
):
    settings = dict(steps=20, steps_per_loop=5, checkpoint_interval=10)
    estimator = make_estimator(tmp_path / "whole", **settings)
    estimator.train(train_input)
    run = tmp_path / "cut"
    make_estimator(run, **settings).train(train_input, steps=10)
    with open(run / "metrics.jsonl", "a") as file:  # killed after step 15, in the middle of a line
        file.write('{"step": 15, "kind": "train", "loss": 1.0}\n{"step": 20, "ki')
    make_estimator(run, **settings).train(train_input)
    assert rows(run) == rows(tmp_path / "whole")


def test_a_stop_in_the_midst_of_a_loop_changes_nothing(make_estimator, tmp_path, monkeypatch):
    monkeypatch.setattr("vit_tf.training.loop._PIECE_SECONDS", 0.0)  # pieces of one step
    images = np.random.default_rng(0).uniform(-1, 1, (40, 16, 8, 8, 3)).astype(np.float32)
    labels = np.arange(40 * 16).reshape(40, 16) % 10

    def input_fn(stop_at=None):
        def batches():
            for step in range(40):
                if step == stop_at:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield images[step], labels[step]

        spec = (tf.TensorSpec([16, 8, 8, 3]), tf.TensorSpec([16], tf.int64))
        return lambda: tf.data.Dataset.from_generator(batches, output_signature=spec)

    settings = dict(steps=20, steps_per_loop=10, checkpoint_interval=10)
    make_estimator(tmp_path / "whole", **settings).train(input_fn())
    with pytest.raises(SystemExit) as stopped:
        make_estimator(tmp_path / "cut", **settings).train(input_fn(stop_at=13))
    assert stopped.value.code == os.EX_TEMPFAIL
    saved = tf.train.latest_checkpoint(str(tmp_path / "cut" / "checkpoints"))
    assert 10 < int(saved.rpartition("-")[2]) < 20
    assert [row["step"] for row in rows(tmp_path / "cut")] == [10]
    make_estimator(tmp_path / "cut", **settings).train(input_fn())
    assert_same_run(tmp_path / "whole", tmp_path / "cut", step=20)


def test_a_stop_before_the_first_step_saves_too(make_estimator, tmp_path):
    def input_fn():
        os.kill(os.getpid(), signal.SIGTERM)
        images, labels = np.zeros((16, 8, 8, 3), np.float32), np.arange(16) % 10
        return tf.data.Dataset.from_tensors((images, labels)).repeat()

    input_fn.batch_size = 16  # so that it is not called before the run has begun
    with pytest.raises(SystemExit) as stopped:
        make_estimator(tmp_path / "run", steps=20, checkpoint_interval=10).train(input_fn)
    assert stopped.value.code == os.EX_TEMPFAIL
    assert tf.train.latest_checkpoint(str(tmp_path / "run" / "checkpoints")).endswith("ckpt-1")


def test_an_evaluation_that_a_stop_cut_off_is_made_up_for(
    make_estimator, train_input, eval_input, tmp_path
):
    settings = dict(steps=20, eval_interval=10)
    make_estimator(tmp_path / "run", **settings).train(train_input, steps=10)
    make_estimator(tmp_path / "run", **settings).train_and_evaluate(train_input, eval_input)
    evaluated = [row["step"] for row in rows(tmp_path / "run") if row["kind"] == "eval"]
    assert evaluated == [10, 20]


def test_two_replicas_give_the_losses_of_one(make_estimator, train_input, eval_input, tmp_path):
    losses = {}
    for strategy in ("cpu", "mirrored"):
        run = tmp_path / strategy
        settings = dict(strategy=strategy, steps=12, steps_per_loop=2, eval_interval=12)
        estimator = make_estimator(run, **settings)
        estimator.train_and_evaluate(train_input, eval_input)
        losses[strategy] = [row["loss"] for row in rows(run)]
    assert estimator.strategy.num_replicas_in_sync == 2
    np.testing.assert_allclose(losses["cpu"], losses["mirrored"], rtol=0, atol=1e-5)


def test_the_step_compiles_with_xla_and_traces_once(
    make_estimator, train_input, eval_input, tmp_path, monkeypatch
):
    loops = []

    def remember(*args):
        loops.append(TrainLoop(*args))
        return loops[-1]

    monkeypatch.setattr(train_run, "TrainLoop", remember)
    losses = {}
    for jit_compile in (False, True):
        run = tmp_path / str(jit_compile)
        # 7 steps: loops of 4 and 3, which must share one trace.
        settings = dict(steps=7, steps_per_loop=4, eval_interval=4, jit_compile=jit_compile)
        make_estimator(run, mixing=MIXING, **settings).train_and_evaluate(train_input, eval_input)
        losses[jit_compile] = [row["loss"] for row in rows(run)]
    assert [loop.num_traces for loop in loops] == [1, 1]
    np.testing.assert_allclose(losses[True], losses[False], rtol=0, atol=1e-5)


def test_dropout_and_stochastic_depth_compile_with_xla(make_estimator, train_input):
    # Their bits differ from those without XLA, which has a generator of its own.
    model = {"dropout": 0.1, "stochastic_depth": 0.1}
    values = make_estimator(model=model, steps=2, jit_compile=True).train(train_input)
    assert np.isfinite(values["loss"])


def test_plain_functions_that_return_datasets_work_too(make_estimator):
    images = np.random.default_rng(0).uniform(-1, 1, (64, 8, 8, 3)).astype(np.float32)
    labels = np.arange(64) % 10

    def input_fn():
        dataset = tf.data.Dataset.from_tensor_slices((images, labels))
        return dataset.repeat().batch(16, drop_remainder=True)

    values = make_estimator(steps=4).train(input_fn)
    assert np.isfinite(values["loss"])


def test_a_users_own_keras_optimizer_drops_in(make_task, train_input, tmp_path):
    def lion(learning_rate):
        return keras.optimizers.Lion(learning_rate=learning_rate)

    config = RunConfig(steps=3, strategy="cpu", optimization=Optimization(lion))
    values = Estimator(make_task(), tmp_path, config).train(train_input)
    assert np.isfinite(values["loss"])


@pytest.mark.parametrize("strategy", ["cpu", "mirrored"])
def test_momentum_sgd_trains_compiled(make_task, train_input, tmp_path, strategy):
    sgd = functools.partial(keras.optimizers.SGD, momentum=0.9)
    config = RunConfig(
        steps=8, strategy=strategy, jit_compile=True, optimization=Optimization(sgd, 0.1)
    )
    Estimator(make_task(), tmp_path, config).train(train_input)
    assert rows(tmp_path)[-1]["loss"] < rows(tmp_path)[0]["loss"]


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "bfloat16"])
def test_bfloat16_trains(make_estimator, train_input, precision):
    values = make_estimator(steps=4, precision=precision).train(train_input)
    assert np.isfinite(values["loss"])
