"""Classification with any number of labels an image: losses, ReaL accuracy, whole runs."""

import csv
import functools
import json

import gin
import numpy as np
import pytest
import tensorflow as tf
import tiny_records

from vit_tf.data import Input, Mixing, RelabelledSource, TFDSSource
from vit_tf.models import create_model
from vit_tf.training import Classification, Estimator, Optimization, RunConfig, configuration
from vit_tf.training.run import run
from vit_tf.training.schedules import cosine

SIZES = dict(image_size=8, patch_size=4, width=16, depth=1, num_heads=2, mlp_dim=16)
make_model = functools.partial(create_model, "vit", num_classes=6, **SIZES)
PLAIN = "decode|resize(8)|value_range(-1, 1)"

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(0, 2, (12, 8, 8, 3)).astype(np.float32)
TARGETS = (RNG.uniform(size=(12, 6)) < 0.3).astype(np.float32)
TARGETS[3] = TARGETS[7] = 0
TARGETS[0, :2] = 1
BATCH = {
    "image": tf.constant(IMAGES),
    "label": tf.constant(TARGETS),
    "mask": tf.ones([12]),
}
COUNTS = TARGETS.sum(axis=1, keepdims=True)
NORMALISED = TARGETS / np.maximum(COUNTS, 1)


def task_and_logits(**settings):
    """A task, its model with a head that is not zero, and the model's logits."""
    task = Classification(make_model, **settings)
    model = task.build_model()
    model.head.kernel.assign(tf.random.stateless_normal(model.head.kernel.shape, [1, 2]))
    return task, model, model(IMAGES, training=False).numpy()


def softmax_loss(targets, logits):
    return -np.sum(targets * tf.nn.log_softmax(logits).numpy(), axis=-1)


def sigmoid_loss(targets, logits):
    p = tf.nn.sigmoid(logits).numpy()
    return -np.sum(targets * np.log(p) + (1 - targets) * np.log(1 - p), axis=-1)


class TestValues:
    def test_softmax_targets_are_divided_by_their_number(self):
        task, model, logits = task_and_logits()
        for values in (task.train_values(model, BATCH), task.eval_values(model, BATCH)):
            expected = softmax_loss(NORMALISED, logits)
            np.testing.assert_allclose(values["loss"], expected, rtol=1e-5, atol=1e-6)
            assert values["loss"][3] == values["loss"][7] == 0

    def test_sigmoid_targets_stay_as_they_are(self):
        task, model, logits = task_and_logits(loss="sigmoid")
        for values in (task.train_values(model, BATCH), task.eval_values(model, BATCH)):
            np.testing.assert_allclose(values["loss"], sigmoid_loss(TARGETS, logits), rtol=1e-4)

    def test_labels_are_smoothed_and_no_labels_are_not(self):
        task, model, logits = task_and_logits(label_smoothing=0.1)
        targets = NORMALISED * 0.9 + 0.1 / 6 * (COUNTS > 0)
        loss = task.train_values(model, BATCH)["loss"]
        np.testing.assert_allclose(loss, softmax_loss(targets, logits), rtol=1e-5, atol=1e-6)

    def test_one_label_in_a_vector_is_that_label(self):
        labels = np.arange(12) % 6
        for settings in ({"label_smoothing": 0.1}, {"loss": "sigmoid"}):
            task, model, _ = task_and_logits(**settings)
            numbers = {**BATCH, "label": tf.constant(labels)}
            vectors = {**BATCH, "label": tf.one_hot(labels, 6)}
            for values_of in (task.train_values, task.eval_values):
                expected = values_of(model, numbers)
                for name, value in values_of(model, vectors).items():
                    np.testing.assert_array_equal(value, expected[name])

    @pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
    def test_mixing_is_exact(self, loss):
        mixing = Mixing(mixup_alpha=0.8, mode="elementwise")
        task, model, _ = task_and_logits(loss=loss, mixing=mixing)
        key = tf.constant([3, 4])
        marks = tf.reshape(tf.range(12.0), [12, 1, 1, 1]) * tf.ones([12, 8, 8, 3])
        mixed = task.augment(model, {**BATCH, "image": marks}, key)
        partner = np.arange(12)[::-1]
        share = (mixed["image"].numpy()[:, 0, 0, 0] - partner) / (np.arange(12) - partner)
        of_image = NORMALISED if loss == "softmax" else TARGETS
        expected = share[:, None] * of_image + (1 - share[:, None]) * of_image[partner]
        np.testing.assert_allclose(mixed["targets"], expected, atol=1e-5)

    def test_thresholds_make_all_labels_of_a_mixed_image_wholly_its_own(self):
        mixing = Mixing(mixup_alpha=0.8)
        task, model, _ = task_and_logits(loss="sigmoid", mixing=mixing, target_threshold=0.0)
        mixed = task.augment(model, BATCH, tf.constant([3, 4]))
        loss = task.train_values(model, mixed)["loss"]
        logits = model(mixed["image"], training=True).numpy()
        either = np.maximum(TARGETS, TARGETS[::-1])
        np.testing.assert_allclose(loss, sigmoid_loss(either, logits), rtol=1e-4)

    def test_accuracy_is_that_of_any_label_and_no_labels_are_left_out(self):
        task, model, logits = task_and_logits()
        right = TARGETS[np.arange(12), logits.argmax(axis=-1)]
        values = task.eval_values(model, BATCH)
        np.testing.assert_array_equal(values["accuracy"], right)
        best = np.argsort(-logits, axis=-1)[:, :5]
        top5 = np.take_along_axis(TARGETS, best, axis=-1).max(axis=-1)
        np.testing.assert_array_equal(values["top5_accuracy"], top5)
        np.testing.assert_array_equal(task.labelled(BATCH), TARGETS.max(axis=-1))

    def test_the_data_may_have_fewer_classes_than_the_model(self):
        task, model, logits = task_and_logits()
        few = TARGETS[:, :4]
        values = task.eval_values(model, {**BATCH, "label": tf.constant(few)})
        targets = np.pad(few / np.maximum(few.sum(axis=1, keepdims=True), 1), [(0, 0), (0, 2)])
        expected = softmax_loss(targets, logits)
        np.testing.assert_allclose(values["loss"], expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """Images 0 to 22 of 5 classes with none to two labels each, 7 of them without."""
    return tiny_records.write_real(tmp_path_factory.mktemp("real"), {"validation": [10, 13]})


@pytest.fixture(scope="module")
def real_json(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("labels") / "real.json"
    path.write_text(json.dumps([tiny_records.real_labels(i) for i in range(30)]))
    return str(path)


def estimator_of(model_dir, **settings) -> Estimator:
    optimization = Optimization(learning_rate=3e-3, schedule=functools.partial(cosine, warmup=2))
    config = {"strategy": "cpu", "steps": 30, "optimization": optimization}
    loss = settings.pop("loss", "softmax")
    return Estimator(Classification(make_model, loss), model_dir, RunConfig(**config | settings))


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """`trained[loss]`: the folder of a run, and its first and last training loss."""
    runs = {}
    for loss in ("softmax", "sigmoid"):
        model_dir = tmp_path_factory.mktemp(loss)
        source = TFDSSource(folder, "validation", label_feature="real_label")
        data = Input(source, PLAIN, 23, training=True)  # a step sees all examples
        estimator = estimator_of(model_dir, loss=loss, eval_interval=10)
        estimator.train(data)
        rows = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
        losses = [row["loss"] for row in rows if row["kind"] == "train"]
        runs[loss] = model_dir, losses[0], losses[-1]
    return runs


class TestRuns:
    @pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
    def test_training_lowers_the_loss(self, trained, loss):
        _, first, last = trained[loss]
        assert last < 0.9 * first

    @pytest.mark.parametrize("strategy", ["cpu", "mirrored"])
    @pytest.mark.parametrize("from_file", [False, True])
    def test_every_labelled_example_counts_once(
        self, trained, folder, real_json, strategy, from_file, capsys
    ):
        feature = "original_label" if from_file else "real_label"
        source = TFDSSource(folder, "validation", label_feature=feature)
        if from_file:
            source = RelabelledSource(source, real_json)
        estimator = estimator_of(trained["softmax"][0], strategy=strategy)
        values = estimator.evaluate(Input(source, PLAIN, 8, training=False))
        assert (values["examples"], values["left_out_examples"]) == (16, 7)
        assert "on 16 examples (7 without a label left out) in" in capsys.readouterr().out
        images = np.stack([tiny_records.pixels(i) for i in range(23)]) / 127.5 - 1
        logits = estimator.model(images.astype(np.float32), training=False).numpy()
        labels = [tiny_records.real_labels(i) for i in range(23)]
        right = [p in true for p, true in zip(logits.argmax(-1), labels, strict=True) if true]
        assert values["accuracy"] == pytest.approx(np.mean(right))
        targets = np.array([[(c in true) / max(len(true), 1) for c in range(6)] for true in labels])
        loss = softmax_loss(targets, logits).sum() / 16
        assert values["loss"] == pytest.approx(loss, rel=1e-4)

    def test_without_any_label_there_is_nothing_to_evaluate(self, trained, folder, tmp_path):
        (tmp_path / "real.json").write_text(json.dumps([[]] * 23))
        source = TFDSSource(folder, "validation", label_feature="original_label")
        source = RelabelledSource(source, f"{tmp_path}/real.json")
        estimator = estimator_of(trained["softmax"][0])
        with pytest.raises(ValueError, match="holds no example with a label; 23 have none"):
            estimator.evaluate(Input(source, PLAIN, 8, training=False))

    def test_more_classes_than_the_head_are_refused(self, trained, folder):
        source = TFDSSource(folder, "validation", label_feature="real_label")
        data = Input(source, PLAIN + "|onehot(9)", 8, training=False)
        with pytest.raises(ValueError, match="the data has 9 classes and the model's head 6"):
            estimator_of(trained["softmax"][0]).evaluate(data)

    def test_it_is_predicted_pictured_and_exported(self, trained, folder):
        model_dir = trained["sigmoid"][0]
        source = TFDSSource(folder, "validation", label_feature="real_label")
        data = Input(source, PLAIN, 8, training=False)
        estimator = estimator_of(model_dir, loss="sigmoid")
        assert len(list(estimator.predict(data))) == 23
        assert tf.io.gfile.exists(estimator.picture(data))
        served = tf.saved_model.load(estimator.export_saved_model(data))
        outputs = served.signatures["serving_default"](
            image_bytes=tf.constant([tiny_records.png(0)])
        )
        assert outputs["top_names"].numpy()[0, 0] in [b"5", *map(str.encode, tiny_records.CLASSES)]


def test_gin_evaluates_a_recipe_on_real(trained, folder, real_json, capsys):
    sizes = [f"create_model.{name} = {value!r}" for name, value in SIZES.items()]
    bindings = [
        "run.task = @Classification",
        "run.eval_input = @eval/Input",
        "RunConfig.strategy = 'cpu'",
        "Classification.model = @create_model",
        "create_model.name = 'vit'",
        "create_model.num_classes = 6",
        *sizes,
        f"eval/Input.preprocess = '{PLAIN}'",
        "eval/Input.batch_size = 8",
        "eval/Input.training = False",
        f"eval/TFDSSource.data_dir = '{folder}'",
        "eval/TFDSSource.split = 'validation'",
        "eval/TFDSSource.label_feature = 'original_label'",
        f"REAL_JSON = '{real_json}'",
    ]
    configuration.parse(["gin/data/imagenet_real.gin"], bindings)
    try:
        model_dir = str(trained["softmax"][0])
        values = run("eval", model_dir)
        assert (values["examples"], values["left_out_examples"]) == (16, 7)
        path = run("predict", model_dir)
    finally:
        gin.clear_config()
    assert "bindings that mode" not in capsys.readouterr().out
    with open(path) as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows[:3]] == ["ant | bee", "bee", "no label"]
