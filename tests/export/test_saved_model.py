"""The SavedModel serves what was evaluated."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from vit_tf.data.digits import digits_collection
from vit_tf.data.input import Input
from vit_tf.data.sources import TFDSSource
from vit_tf.export import export_saved_model, saved_model
from vit_tf.models import create_model
from vit_tf.training import Classification

NAMES = list("0123456789")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def eval_input(digits_dir):
    # Resized and cropped, so that preprocessing left out or done twice would show.
    ops = "decode|resize(20)|central_crop(16)|value_range(-1, 1)"
    return Input(TFDSSource(digits_dir, "test"), ops, batch_size=16, training=False)


@pytest.fixture(scope="module")
def model():
    model = create_model(
        "vit",
        image_size=16,
        patch_size=8,
        width=16,
        depth=2,
        num_heads=2,
        mlp_dim=32,
        pool="token",
        num_classes=10,
    )
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:  # the head's zeros would hide any difference
        weight.assign(weight + rng.normal(0, 0.3, weight.shape))
    return model


@pytest.fixture(scope="module")
def predict(model):
    return functools.partial(Classification(lambda: model).predict_values, model)


@pytest.fixture(scope="module")
def exported(model, predict, eval_input, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("export"))
    return export_saved_model(model, predict, eval_input, NAMES, folder, {"step": 7})


@pytest.fixture(scope="module")
def evaluated(predict, eval_input):
    """Logits of the whole test split, by record."""
    logits = np.zeros((360, 10), np.float32)
    for batch in eval_input():
        real = batch["mask"].numpy() > 0
        logits[batch["index"].numpy()[real]] = predict(batch["image"])["logits"].numpy()[real]
    return logits


@pytest.fixture(scope="module")
def encoded(eval_input):
    return [record["image"].numpy() for record in eval_input.encoded()]


def test_served_bytes_give_the_evaluated_logits(exported, evaluated, encoded):
    serve = tf.saved_model.load(exported).signatures["serving_default"]
    outputs = serve(image_bytes=tf.constant(encoded))
    np.testing.assert_allclose(outputs["logits"], evaluated, rtol=0, atol=1e-5)
    probabilities = outputs["probabilities"].numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    order = np.argsort(-evaluated, axis=1)[:, :5]
    np.testing.assert_array_equal(outputs["top_ids"].numpy()[:, 0], order[:, 0])
    names = [[name.decode() for name in row] for row in outputs["top_names"].numpy()]
    assert names == [[str(i) for i in row] for row in outputs["top_ids"].numpy()]
    expected = np.take_along_axis(probabilities, outputs["top_ids"].numpy(), axis=1)
    np.testing.assert_array_equal(outputs["top_probabilities"], expected)


def test_the_image_signature_takes_decoded_images_of_any_size(exported, evaluated, encoded):
    serve = tf.saved_model.load(exported).signatures["image"]
    pixels = tf.stack([tf.io.decode_png(image, channels=3) for image in encoded[:9]])
    np.testing.assert_allclose(serve(images=pixels)["logits"], evaluated[:9], rtol=0, atol=1e-5)
    larger = serve(images=tf.zeros([2, 31, 17, 3], tf.uint8))
    assert larger["logits"].shape == (2, 10)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_batch_size(exported, count, encoded):
    serve = tf.saved_model.load(exported).signatures["serving_default"]
    outputs = serve(image_bytes=tf.constant(encoded[:count], tf.string, shape=[count]))
    assert outputs["logits"].shape == (count, 10)


def test_the_model_card_says_what_it_is(exported):
    card = json.loads((Path(exported) / "assets.extra/model_card.json").read_text())
    assert card["preprocess"].startswith("decode|resize(20")
    assert card["class_names"] == list("0123456789")
    assert card["step"] == 7
    assert card["largest_difference_to_evaluation"] <= 1e-5


def test_exports_are_numbered_and_nothing_else_is_left(model, predict, eval_input, tmp_path):
    paths = [export_saved_model(model, predict, eval_input, NAMES, str(tmp_path)) for _ in range(2)]
    assert [Path(path).name for path in paths] == ["1", "2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_a_served_model_that_differs_is_not_published(
    model, predict, eval_input, tmp_path, monkeypatch
):
    serve = saved_model.ServingModule._outputs

    def wrong(self, images):
        return serve(self, tf.reverse(images, axis=[2]))

    monkeypatch.setattr(saved_model.ServingModule, "_outputs", wrong)
    with pytest.raises(RuntimeError, match="differ from the evaluated ones by .*not published"):
        export_saved_model(model, predict, eval_input, NAMES, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def predict_tool(*arguments):
    """Runs tools/predict.py where `import vit_tf` fails."""
    blocked = (
        "import runpy, sys; sys.modules['vit_tf'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return subprocess.run(
        [sys.executable, "-c", blocked, "tools/predict.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_predict_classifies_files_in_a_process_without_vit_tf(exported, evaluated, tmp_path):
    records = sorted(digits_collection().splits["test"], key=lambda record: record.filename)[:5]
    for record in records:
        (tmp_path / record.filename).write_bytes(record.read())
    done = predict_tool(f"--saved_model={exported}", str(tmp_path), "--format=jsonl")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(row["file"]).name for row in rows] == [record.filename for record in records]
    assert all(len(row["classes"]) == 3 for row in rows)

    (tmp_path / "notes.png").write_text("no image")
    done = predict_tool(f"--saved_model={exported}", str(tmp_path))
    assert done.returncode == 1
    assert f"error: {tmp_path}/notes.png cannot be decoded (8 bytes)" in done.stderr


def test_predict_names_what_is_missing(tmp_path):
    done = predict_tool(f"--saved_model={tmp_path}", "x.png")
    assert f"error: no SavedModel in {tmp_path}; write one with" in done.stderr
