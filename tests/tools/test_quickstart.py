"""The quickstart runs from another folder, says true things, and goes on when started again."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

ROOT = Path(__file__).resolve().parents[2]
# Shorter than the real one, which takes 1,200 steps.
BINDINGS = (
    "RunConfig.steps = 300",
    "RunConfig.eval_interval = 300",
    "cosine.warmup = 30",
)


def quickstart(folder, *arguments):
    command = [sys.executable, ROOT / "tools" / "quickstart.py", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def fact(output, name):
    return re.search(rf"^  {name} +(.*)$", output, re.MULTILINE)[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("somewhere else")


@pytest.fixture(scope="module")
def first(folder):
    return quickstart(folder, "--out=my digits", *(f"--gin_param={b}" for b in BINDINGS))


@pytest.mark.slow
def test_the_summary_tells_what_happened(first, folder):
    assert first.returncode == 0, first.stderr
    accuracy = re.fullmatch(
        r"(.*) % of 360 images, after 300 steps", fact(first.stdout, "test acc.*?")
    )
    assert 60 < float(accuracy[1]) <= 100
    assert fact(first.stdout, "served accuracy").startswith(f"{accuracy[1]} %")
    assert fact(first.stdout, "SavedModel") == "my digits/export/1"
    for path in fact(first.stdout, "pictures").split(", "):
        assert tf.io.decode_png((folder / path).read_bytes()).shape[0] > 100
    for path in ("checkpoints/checkpoint", "best/best.json", "metrics.jsonl", "tensorboard"):
        assert (folder / "my digits" / path).exists()


@pytest.mark.slow
def test_every_printed_command_runs_as_printed(first, folder):
    commands = re.findall(r"^\$ (.*)$", first.stdout, re.MULTILINE)
    tools = [re.search(r"tools/(\w+)\.py ", command)[1] for command in commands]
    assert tools == ["make_tfrecords", "train", "train", "predict"]
    assert """--gin_param="DATA_DIR = 'my digits/data/digits'" """ in commands[1]
    for command in (commands[0], commands[3]):
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


@pytest.mark.slow
def test_started_again_it_has_nothing_to_train(first, folder):
    arguments = ("--out=my digits", *(f"--gin_param={b}" for b in BINDINGS))
    again = quickstart(folder, *arguments)
    assert again.returncode == 0, again.stderr
    assert fact(again.stdout, "test accuracy") == fact(first.stdout, "test accuracy")
    assert fact(again.stdout, "SavedModel") == "my digits/export/2"


@pytest.mark.slow
def test_fresh_deletes_only_a_quickstart(tmp_path):
    (tmp_path / "thesis.tex").touch()
    done = quickstart(tmp_path, f"--out={tmp_path}", "--fresh")
    assert done.returncode == 1
    assert f"--fresh would delete {tmp_path}, in which no quickstart has run" in done.stderr
    assert os.listdir(tmp_path) == ["thesis.tex"]
