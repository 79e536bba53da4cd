"""tools/export.py exports what its flags name, or says in a line what is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from vit_tf.data.digits import digits_collection
from vit_tf.export import ExportOptions, export_model
from vit_tf.export.saved_keras import model_card
from vit_tf.models import create_model
from vit_tf.training.export_named import export_named

ROOT = Path(__file__).resolve().parents[2]
NAMES = [f"digit {n}" for n in range(10)]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = create_model(
        "vit", image_size=8, patch_size=4, width=8, depth=1, num_heads=2, mlp_dim=8, num_classes=10
    )
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight + rng.normal(0, 0.3, weight.shape))
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory, model):
    """A Keras file, images and names."""
    folder = tmp_path_factory.mktemp("files")
    model.save(folder / "model.keras")
    (folder / "images").mkdir()
    for record in digits_collection().splits["test"][:3]:
        (folder / "images" / record.filename).write_bytes(record.read())
    (folder / "labels.txt").write_text("\n".join(NAMES) + "\n")
    return folder


def tool(*arguments, **options):
    command = [sys.executable, "tools/export.py", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_a_keras_file_is_exported_with_names_in_bfloat16_and_evaluated(files, digits_dir, tmp_path):
    path = export_named(
        None,
        str(files / "model.keras"),
        str(tmp_path),
        dataset=digits_dir,
        class_names=str(files / "labels.txt"),
        options=ExportOptions(
            precision="bfloat16",
            top_k=3,
            image_sizes=(12, (16, 8)),
            serving="digits",
            evaluate=True,
        ),
    )
    card = model_card(path)
    assert card["class_names"] == NAMES
    assert card["precision"] == "bfloat16"
    assert card["served_accuracy"]["examples"] == 360
    assert card["signatures"]["classify"]["outputs"]["top_names"] == "string [?, 3]"
    assert {"classify_12", "classify_16x8"} < set(card["check"]["signatures"])
    assert card["check"]["largest_difference"] == 0
    assert (tmp_path / "model.config").exists()


def test_images_may_be_bytes_files_folders_or_patterns(model, files, tmp_path):
    image = next((files / "images").iterdir())
    given = [image.read_bytes(), image, files / "images", f"{files}/images/*.png"]
    card = model_card(export_model(model, given, tmp_path))
    assert card["check"]["images"] == 1 + 1 + 3 + 3
    assert card["data"] is None
    with pytest.raises(FileNotFoundError, match=r"no file matches .*/\*\.gif"):
        export_model(model, f"{files}/*.gif", tmp_path)
    with pytest.raises(ValueError, match="an image cannot be read .5 bytes.: "):
        export_model(model, [b"noise"], tmp_path)
    with pytest.raises(ValueError, match="there are 2 class names, and the model has 10 classes"):
        export_model(model, image, tmp_path, class_names=["one", "two"])
    with pytest.raises(ValueError, match="precision must be one of .* Did you mean 'bfloat16'"):
        ExportOptions(precision="bfloat")
    assert [folder.name for folder in tmp_path.iterdir()] == ["1"]


def test_weights_that_leave_a_head_fresh_are_refused(files, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("a\nb\n")
    arguments = {"images": [str(files / "images")], "class_names": str(names)}
    with pytest.raises(ValueError, match="leaves 2 weights of vit as they were made.* has 2 names"):
        export_named("vit", str(files / "model.keras"), str(tmp_path), **arguments)
    with pytest.raises(ValueError, match="--model=vit_s16 needs --weights"):
        export_named("vit_s16", None, str(tmp_path), images=["x"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "name what to export: --gin_file and --model_dir of a run, --model and"),
        (("--model_dir=x",), "a run is named by --gin_file and --model_dir, both"),
        (("--weights=x.keras",), "--export_dir says where to write, and is missing"),
        (("--weights=x.keras", "--image_sizes=1x2x3"), "--image_sizes are written 384 or 448x336;"),
        (("--weights=x.keras", "--checkpoint=best"), "--checkpoint: only for the export of a run"),
        (
            ("--gin_file=a.gin", "--model_dir=x", "--images=y"),
            "--images: only for the export of a model by its name; leave it out",
        ),
    ],
)
def test_flags_that_do_not_go_together_are_named(flags, message):
    with tool(*flags) as process:
        _, stderr = process.communicate()
    assert process.returncode == 1
    assert f"error: {message}" in stderr


@pytest.mark.slow
def test_a_killed_export_leaves_nothing_that_is_served_and_the_next_one_is_whole(files, tmp_path):
    flags = [f"--weights={files}/model.keras", f"--images={files}/images"]
    flags += [f"--export_dir={tmp_path}", "--name=mine", "--attention=rollout"]
    with tool(*flags) as process:
        while not list(tmp_path.glob("mine/.incomplete-*/saved_model.pb")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert [name[:12] for name in os.listdir(tmp_path / "mine")] == [".incomplete-"]
    with tool(*flags, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}) as process:
        stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert stdout.splitlines()[-1] == f"SavedModel: {tmp_path}/mine/1"
    assert os.listdir(tmp_path / "mine") == ["1"]
    card = json.loads((tmp_path / "mine/1/assets.extra/model_card.json").read_text())
    assert "attention" in card["check"]["signatures"]
