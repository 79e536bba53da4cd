"""Each notebook runs from top to bottom offline, with tiny settings, and shows what it promises."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import stored_notebooks as notebooks
import tensorflow as tf

import vit_tf
from vit_tf.analysis.model_pictures import PICTURES
from vit_tf.data import Preprocess

pytestmark = pytest.mark.slow

CLASSES = ("daisy", "rose", "tulip")
COLOURS = ((240, 240, 240), (200, 30, 60), (240, 200, 30))
A_CLASS = 10  # images
TINY = {"patch_size": 8, "width": 32, "depth": 2, "num_heads": 2, "mlp_dim": 64}


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """What notebooks download otherwise: an archive of photographs, a model, names of classes."""
    folder = tmp_path_factory.mktemp("offline")
    rng = np.random.default_rng(0)
    for label, colour in zip(CLASSES, COLOURS, strict=True):
        for number in range(A_CLASS):
            path = folder / "flower_photos" / label / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.clip(rng.normal(colour, 40, (48, 64, 3)), 0, 255).astype(np.uint8)
            path.write_bytes(tf.io.encode_jpeg(pixels).numpy())
    shutil.make_archive(folder / "flower_photos", "gztar", folder, "flower_photos")
    shutil.move(folder / "flower_photos.tar.gz", folder / "flower_photos.tgz")
    model = vit_tf.create_model("vit", image_size=32, num_classes=6, **TINY)
    for weight in model.weights:  # none is as a fresh model has it
        weight.assign(weight + rng.normal(0, 0.1, weight.shape))
    model.save(folder / "tiny.keras")
    (folder / "names.txt").write_text("background\n" + "\n".join("abcdef"))
    return folder


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder as a reader has it: the project's, nothing kept from elsewhere, and no network."""
    place = tmp_path / "project"
    place.mkdir()
    for folder in ("gin", "tools", "vit_tf"):
        (place / folder).symlink_to(notebooks.ROOT / folder)
    monkeypatch.setenv("PYTHONPATH", str(place))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "KERAS_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")  # where nobody listens
    return place


@pytest.fixture
def run(workplace, offline):
    """Executes the notebook of a number; returns what it put out."""

    def run(number, **changed):
        (path,) = (path for path in notebooks.PATHS if path.name.startswith(f"{number}_"))
        return notebooks.execute(path, workplace, changed)

    return run


@pytest.fixture
def classifier(offline):
    """Settings of a notebook that classifies one photograph, and the right answer."""
    image, names = offline / "flower_photos" / "rose" / "0.jpg", offline / "names.txt"
    model = vit_tf.create_model("vit", weights=str(offline / "tiny.keras"))
    view = Preprocess(model.preprocessing.ops).image_from_bytes(image.read_bytes())
    values = tf.nn.softmax(model(view[None])).numpy()[0]
    given = {
        "MODEL": "vit",
        "WEIGHTS": str(offline / "tiny.keras"),
        "IMAGE": image.as_uri(),
        "CLASS_NAMES": names.as_uri(),
    }
    return given, f"{values.max():.1%}  {'abcdef'[values.argmax()]}"


def test_quickstart_names_the_class_and_shows_the_attention(run, classifier):
    given, right = classifier
    done = run(1, **given)
    said = [line.strip() for line in done.printed("predictor").splitlines() if "%  " in line]
    assert said[0] == right and len(said) == 5
    assert [done.figures(cell) for cell in ("bars", "rollout", "layers")] == [1, 1, 1]
    assert "pre_logits   (1, 32)" in done.printed("features")


def test_a_folder_of_photographs_is_learnt_and_exported(run, offline, workplace):
    done = run(
        2,
        MODEL="vit",
        WEIGHTS=str(offline / "tiny.keras"),
        ARCHIVE=(offline / "flower_photos.tgz").as_uri(),
        IMAGE_SIZE=16,
        BATCH_SIZE=8,
        STEPS=20,
        LEARNING_RATE=0.003,
    )
    assert "24 training and 6 test images" in done.printed("inputs")
    accuracy = float(re.search(r"test accuracy ([\d.]+)%", done.printed("curve"))[1])
    assert accuracy > 60  # three colours; chance is 33
    figures = [done.figures(cell) for cell in ("inputs", "curve", "mistakes")]
    assert figures == [1, 1, 1]
    assert {line.split()[-1] for line in done.printed("export").splitlines()[-3:]} == set(CLASSES)
    assert (workplace / "runs" / "flowers" / "export" / "1" / "saved_model.pb").exists()


def test_probes_compare_features_with_baselines(run, offline):
    done = run(
        3,
        MODEL="vit",
        WEIGHTS=str(offline / "tiny.keras"),
        ARCHIVE=(offline / "flower_photos.tgz").as_uri(),
        TRAIN="train[:60%]",
        TEST="train[60%:]",
        SHOTS=[1, 2],
        BATCH_SIZE=8,
    )
    names = [line.split("  ")[0] for line in done.printed("shots").splitlines()]
    assert names[0] == "pixels" and names[1].startswith("fresh") and len(names) == 3
    assert "tiny.keras: 18 training and 12 test images, 3 features" in done.printed("features")
    assert [done.figures(cell) for cell in ("shots", "layers")] == [1, 1]


def test_a_student_learns_with_and_without_a_teacher(run, offline, workplace):
    done = run(
        4,
        TEACHER_MODEL="vit",
        TEACHER_WEIGHTS=str(offline / "tiny.keras"),
        TEACHER_SIZE=16,
        TEACHER_STEPS=4,
        ARCHIVE=(offline / "flower_photos.tgz").as_uri(),
        SIZE=16,
        WIDTH=12,
        DEPTH=1,
        BATCH_SIZE=8,
        STEPS=4,
    )
    names = [line.split()[0] for line in done.printed("curves").splitlines()]
    assert names == ["teacher", "alone", "distilled"]
    assert (
        "teacher_agreement" in (workplace / "runs/distillation/distilled/metrics.jsonl").read_text()
    )
    assert [done.figures(cell) for cell in ("curves", "tokens")] == [1, 1]


def test_all_pictures_are_drawn_of_two_models(run, offline):
    done = run(
        5,
        MODEL="vit",
        WEIGHTS=str(offline / "tiny.keras"),
        COMPARED_WITH=str(offline / "tiny.keras"),
        ARCHIVE=(offline / "flower_photos.tgz").as_uri(),
        IMAGES=6,
        SHOWN=2,
    )
    shown = {cell: done.markdown(cell) for cell in done.cells}
    usual = {name: picture for name, picture in PICTURES.items() if not picture.unusual}
    for name, picture in usual.items():
        (cell,) = (cell for cell, text in shown.items() if f"### {picture.title}\n" in text)
        assert picture.text.split("\n")[0] in shown[cell], name
        assert done.figures(cell) >= shown[cell].count("### ")
    everything = "".join(shown.values())
    assert "Left out" not in everything
    for name in PICTURES.keys() - usual.keys():  # this model has nothing to show there
        assert f"### {PICTURES[name].title}\n" not in everything


def test_files_of_jax_and_pytorch_are_converted(run, shared, workplace):
    golden = shared / "golden"
    jax = golden / "vision_transformer" / "vit_token"
    pytorch = golden / "deit" / "deit_distilled"
    done = run(
        6,
        JAX_FILE=(jax / "checkpoint.npz").as_uri(),
        PYTORCH_FILE=(pytorch / "checkpoint.pth").as_uri(),
        IMAGE_SIZE=48,
    )
    assert done.printed("load").count(" 0 missing, 0 unexpected, 0 mismatched") == 2
    assert done.printed("save").count("the same logits: True") == 2
    assert done.figures("resize") == 1
    # What was written is the reference's model.
    size = {**TINY, "num_heads": 4, "image_size": 32, "num_classes": 10}
    model = vit_tf.create_model("vit", **size)
    converted = workplace / "runs" / "converted" / "jax.safetensors"
    vit_tf.load_checkpoint(model, str(converted), strict=True)
    stored = np.load(jax / "io.npz")
    np.testing.assert_allclose(model(stored["image"]), stored["logits"], rtol=0, atol=1e-5)


def test_a_batch_is_shared_by_replicas(run, workplace):
    done = run(
        7,
        STRATEGY="mirrored",
        VIRTUAL_CPUS=2,
        SOURCE="digits",
        DATA="data/digits",
        IMAGE_SIZE=8,
        PATCH_SIZE=4,
        WIDTH=12,
        DEPTH=1,
        BATCH_SIZE=64,
        STEPS=4,
    )
    assert "MirroredStrategy: a replica on each" in done.printed("strategy")
    assert "batch of 64 = 2 x 32, float32" in done.printed("strategy")
    assert "of 360 test images, 2 replicas" in done.printed("curve")
    assert done.figures("curve") == 1


def test_what_is_served_is_the_models_answer(run, classifier, workplace):
    given, right = classifier
    done = run(8, **given)
    read, unreadable = done.printed("load").split("image 1:")
    assert right in read
    assert not unreadable.strip().startswith("read")
    assert (workplace / "runs" / "served" / "1" / "saved_model.pb").exists()
    percent, name = right.split()
    (row,) = (line for line in done.printed("command").splitlines() if "0.jpg" in line)
    assert row.partition("0.jpg")[2].split()[:2] == [name, percent.removesuffix("%")]
    assert done.figures("attention") == 1
    assert "tensorflow/serving" in done.printed("serving")


def test_laws_are_fitted_to_runs_and_predict_another(run, workplace):
    done = run(
        9,
        SOURCE="digits",
        DATA="data/digits",
        IMAGE_SIZE=8,
        PATCH_SIZE=4,
        DEPTH=1,
        WIDTHS=[8, 16],
        STEPS=[2, 8],
        HELD_OUT=16,
        BATCH_SIZE=64,
    )
    form = re.compile(r"^(w\d+_s\d+) +(\S+) FLOPs +error (\S+)%", re.MULTILINE)
    points = {name: (float(c), float(e)) for name, c, e in form.findall(done.printed("points"))}
    assert list(points) == ["w8_s2", "w8_s8", "w16_s2", "w16_s8"]
    assert points["w8_s8"][0] == pytest.approx(4 * points["w8_s2"][0], rel=0.01)
    runs = workplace / "runs" / "scaling"
    for name, (_, error) in points.items():
        last = json.loads((runs / name / "metrics.jsonl").read_text().splitlines()[-1])
        assert error == pytest.approx(100 * (1 - last["accuracy"]), abs=0.06)
    assert "saturating" in done.printed("fit")  # a law, or that points are too few
    assert re.search(r"log-log +said [\d.]+%", done.printed("predict"))
    assert done.figures("predict") == 1
    assert "evaluation at step 16" in (runs / "w16_s16.log").read_text()
