"""tools/predict.py: image files in, classes out, whatever runs the model."""

import functools
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from vit_tf.data import Preprocess
from vit_tf.data.digits import digits_collection
from vit_tf.export.card_lines import card_lines
from vit_tf.export.classify_files import AttentionWriter, classify_files
from vit_tf.export.prediction_table import table_lines
from vit_tf.export.predictors import KerasPredictor, Prediction, SavedModelPredictor
from vit_tf.export.serving_module import ServingModule
from vit_tf.models import create_model, extract_features
from vit_tf.training import Classification
from vit_tf.training.named_predictor import load_predictor

ROOT = Path(__file__).resolve().parents[2]
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
OPS = "decode|resize(20)|central_crop(16)|value_range(-1, 1)"
NAMES = [f"digit {i}" for i in range(10)]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    shape = {"image_size": 16, "patch_size": 8, "width": 16, "depth": 2, "mlp_dim": 32}
    model = create_model("vit", **shape, num_heads=2, pool="token", num_classes=10)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:  # the head's zeros would make all classes alike
        weight.assign(weight + rng.normal(0, 0.3, weight.shape))
    return model


@pytest.fixture(scope="module")
def predict(model):
    return functools.partial(Classification(lambda: model).predict_values, model)


@pytest.fixture(scope="module")
def in_process(model, predict):
    return KerasPredictor(model, predict, OPS, NAMES, name="a ViT")


@pytest.fixture(scope="module")
def exported(model, predict, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    module = ServingModule(model, predict, Preprocess(OPS), NAMES, attention=("rollout",))
    tf.saved_model.save(module, str(folder / "3"), signatures=module.signatures())
    return folder


@pytest.fixture(scope="module")
def saved(exported):
    return SavedModelPredictor(str(exported))


class Older(tf.Module):
    """Signatures as they were before images had errors of their own."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def classify(self, image_bytes):
        pixels = tf.map_fn(
            lambda image: tf.io.decode_image(image, 3, tf.float32, expand_animations=False)[0, 0],
            image_bytes,
            fn_output_signature=tf.TensorSpec([3], tf.float32),
        )
        top = tf.math.top_k(pixels, 2)
        names = tf.gather(tf.constant(["red", "green", "blue"]), top.indices)
        return {"top_ids": top.indices, "top_probabilities": top.values, "top_names": names}


@pytest.fixture(scope="module")
def images():
    return [record.read() for record in digits_collection().splits["test"][:5]]


@pytest.fixture
def folder(tmp_path, images):
    """Two images, and between them one that is none."""
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    (folder / "a.png").write_bytes(images[0])
    (folder / "b.png").write_text("no image")
    (folder / "more" / "a.png").write_bytes(images[1])
    return folder


def tool(*arguments):
    return subprocess.run(
        [sys.executable, "tools/predict.py", *map(str, arguments)],
        cwd=ROOT,
        env=QUIET,
        capture_output=True,
        text=True,
        check=False,
    )


def tool_beside_a_terminal(*arguments):
    """Runs it with stderr on a terminal and stdout in a pipe; returns status and both."""
    terminal, its_end = pty.openpty()
    termios.tcsetwinsize(its_end, (24, 80))
    command = [sys.executable, "tools/predict.py", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": its_end}
    with subprocess.Popen(command, cwd=ROOT, env=QUIET, text=True, **pipes) as process:
        os.close(its_end)
        printed = process.stdout.read()
    said = os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    return process.returncode, printed, said


def test_the_tool_prints_json_lines_with_progress_and_writes_attention(
    exported, saved, folder, tmp_path
):
    pictures = tmp_path / "attention"
    pattern = folder / "**" / "a.png"
    status, printed, said = tool_beside_a_terminal(
        f"--saved_model={exported}", pattern, "--format=jsonl", f"--attention={pictures}"
    )
    assert status == 0, said
    assert f"SavedModel {exported}/3, the newest" in said
    assert "2/2" in said
    rows = [json.loads(line) for line in printed.splitlines()]
    files = [folder / "a.png", folder / "more" / "a.png"]
    assert [row["file"] for row in rows] == list(map(str, files))
    for row, expected in zip(rows, saved.classify([f.read_bytes() for f in files]), strict=True):
        pairs = list(zip(expected.names, expected.probabilities, strict=True))[:3]
        assert [name for name, _ in row["classes"]] == [name for name, _ in pairs]
        values = [value for _, value in row["classes"]]
        np.testing.assert_allclose(values, [value for _, value in pairs], atol=1e-5)
    written = sorted(str(path.relative_to(pictures)) for path in pictures.rglob("*.png"))
    assert written == ["a.png.png", "more/a.png.png"]


def test_the_tool_classifies_what_it_can_and_lists_the_rest(exported, folder):
    (folder / "empty.png").touch()
    arguments = ["--batch_size=2", folder, "missing.png", "--format=csv", "--top_k=7"]
    done = tool(f"--saved_model={exported}", *arguments)
    assert done.returncode == 1
    header, *rows = done.stdout.splitlines()
    assert header.startswith("file,class_1,probability_1,class_2,")
    assert header.endswith(",class_5,probability_5")
    assert [row.split(",")[0] for row in rows] == [f"{folder}/a.png", f"{folder}/more/a.png"]
    assert all(len(row.split(",")) == len(header.split(",")) for row in rows)
    said = done.stderr.splitlines()
    assert f"SavedModel {exported}/3, the newest" in said
    assert "--top_k=7: the model names the 5 likeliest classes" in said
    missing, text, empty = [line for line in said if line.startswith("error: ")]
    assert missing == "error: no such file or folder: missing.png"
    assert text.startswith(f"error: {folder}/b.png: not a")
    assert empty.startswith(f"error: {folder}/empty.png: ")


def test_the_tool_ends_quietly_when_nobody_reads_on(exported, folder):
    command = [sys.executable, "tools/predict.py", f"--saved_model={exported}/3", str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=QUIET, **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGPIPE


def test_a_model_in_this_process_and_its_export_say_the_same(in_process, saved, images):
    batch = [*images, b"no image"]
    for ours, served in zip(in_process.classify(batch), saved.classify(batch), strict=True):
        assert (ours.ids, ours.names, ours.error) == (served.ids, served.names, served.error)
        np.testing.assert_allclose(ours.probabilities, served.probabilities, atol=1e-6)
    for method in ("attention", "embed", "seen"):
        ours, served = getattr(in_process, method)(batch), getattr(saved, method)(batch)
        assert ours.pop() is served.pop() is None
        np.testing.assert_allclose(ours, served, atol=1e-5)


def test_what_the_model_saw_is_the_resized_and_cropped_image(saved, images):
    [seen] = saved.seen(images[:1])
    expected = Preprocess("decode|resize(20)|central_crop(16)").image_from_bytes(images[0])
    np.testing.assert_allclose(seen, np.rint(expected), atol=1)


def test_attention_is_that_of_the_models_last_token(saved, model, images):
    [rollout] = saved.attention(images[:1])
    image = Preprocess(OPS).image_from_bytes(images[0])[None]
    product = np.eye(5)
    for weights in extract_features(
        model, image, ["block00/attn_weights", "block01/attn_weights"]
    ).values():
        mixed = np.mean(weights[0], axis=0) + np.eye(5)
        product = mixed / mixed.sum(axis=1, keepdims=True) @ product
    np.testing.assert_allclose(rollout, product[0, 1:].reshape(2, 2), atol=1e-6)


def test_a_saved_model_without_errors_of_its_own_tries_a_damaged_batch_one_by_one(tmp_path):
    older = Older()
    tf.saved_model.save(older, str(tmp_path), signatures={"serving_default": older.classify})
    predictor = SavedModelPredictor(str(tmp_path))
    red = tf.io.encode_png(np.uint8([[[255, 51, 0]]])).numpy()
    bad = Prediction(error="not an image, or damaged (4 bytes)")
    good = Prediction((0, 1), ("red", "green"), (1.0, pytest.approx(0.2)))
    assert predictor.classify([red, b"text", red]) == [good, bad, good]
    assert predictor.classify([b"text"]) == [bad]
    with pytest.raises(ValueError, match="no signature 'attention'.*; export it again with --att"):
        predictor.attention([red])


def test_a_saved_model_of_others_is_named(tmp_path):
    module = tf.Module()
    module.run = tf.function(
        lambda x: {"y": x}, input_signature=[tf.TensorSpec([None], name="inputs")]
    )
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.run})
    with pytest.raises(ValueError, match="not written by vit_tf: .* takes inputs, not image_bytes"):
        SavedModelPredictor(str(tmp_path))
    (tmp_path / "saved_model.pb").write_bytes(b"no proto")
    with pytest.raises(ValueError, match=f"{tmp_path} cannot be loaded"):
        SavedModelPredictor(str(tmp_path))


def test_every_class_needs_a_name(model, predict):
    with pytest.raises(ValueError, match="a ViT has 10 classes, but 2 class names are given"):
        KerasPredictor(model, predict, OPS, ["a", "b"], name="a ViT")


def test_files_that_vanish_while_others_are_classified_are_listed(saved, folder):
    problems = []
    files = [folder / "a.png", folder / "gone.png", folder / "b.png", folder / "more" / "a.png"]
    rows = list(classify_files(saved, files, 2, problems))
    assert [file for file, _ in rows] == [files[0], files[3]]
    gone, text = problems
    assert gone.startswith(f"{files[1]} cannot be read: ")
    assert text.startswith(f"{files[2]}: not a")


def test_an_overlay_lies_beside_what_the_model_saw(saved, folder, tmp_path):
    files = [folder / "a.png", folder / "b.png"]
    problems = []
    writer = AttentionWriter(saved, files, tmp_path / "out")
    list(classify_files(saved, files, 8, problems, writer))
    [picture] = (tmp_path / "out").iterdir()
    sheet = np.asarray(Image.open(picture))
    [seen] = saved.seen([files[0].read_bytes()])
    large = np.asarray(Image.fromarray(seen).resize((320, 320), Image.BICUBIC))
    np.testing.assert_array_equal(sheet[:, :320], large)
    assert len(problems) == 1


def test_a_table_is_for_people_and_csv_has_its_header_even_alone():
    rows = [(Path("x, y.png"), Prediction((1, 0), ("one, two", "ä"), (0.75, 0.25)))]
    assert list(table_lines(rows, "table", 1)) == [f"{'x, y.png':<40} one, two  75.0 %"]
    assert list(table_lines(rows, "csv", 2)) == [
        "file,class_1,probability_1,class_2,probability_2",
        '"x, y.png","one, two",0.75,ä,0.25',
    ]
    assert list(table_lines([], "csv", 1)) == ["file,class_1,probability_1"]
    with pytest.raises(ValueError, match="written as table, csv, jsonl; given 'xml'"):
        table_lines(rows, "xml", 1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "name one model: --saved_model, .*; given none"),
        ({"saved_model": "a", "server": "b"}, "name one model: .*; given 2"),
        ({"model": "vit_ti16"}, "--model=vit_ti16 needs --weights: fresh ones know nothing"),
        ({"weights": "x.npz"}, "--weights goes with --model: x.npz does not say whose"),
        ({"saved_model": "a", "class_names": "b"}, "--class_names goes with --weights and"),
        ({"model_dir": "a"}, "--model_dir needs --gin_file"),
    ],
)
def test_flags_that_do_not_go_together_are_named(flags, message):
    with pytest.raises(ValueError, match=message):
        load_predictor(**flags)


def test_a_keras_file_gets_its_class_names_from_another(model, in_process, tmp_path, images):
    model.save(tmp_path / "model.keras")
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    flags = {"weights": f"{tmp_path}/model.keras", "class_names": f"{tmp_path}/names.txt"}
    predictor = load_predictor(**flags, top_k=7)
    assert predictor.describe() == "model.keras"
    [prediction] = predictor.classify(images[:1])
    assert prediction.names == tuple(f"digit {i}" for i in prediction.ids)
    assert len(prediction.ids) == 7


def test_the_model_cards_facts_are_lines_for_a_person():
    card = {
        "model": "vit_s16",
        "parameters": 22050664,
        "class_names": ["a", "b"],
        "data": {"name": "cifar10", "version": "1.0.0", "split": "test", "examples": 10000},
        "evaluation": {"accuracy": 0.5554, "examples": 10000},
        "origin": {"source": "a paper", "licence": "Apache-2.0", "upstream": None},
        "configuration": "x = 1",
        "step": None,
    }
    assert card_lines(card) == {
        "model": "vit_s16",
        "parameters": "22,050,664",
        "classes": "2",
        "evaluated on": "cifar10 1.0.0, test",
        "accuracy": "55.54 % of 10,000 images",
        "source": "a paper",
        "licence": "Apache-2.0",
    }
    older = {"model": "ViT", "class_names": ["a"], "preprocess": "decode"}
    assert card_lines(older) == {"model": "ViT", "classes": "1", "preprocess": "decode"}
