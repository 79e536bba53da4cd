import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

TOOL = Path(__file__).parents[2] / "tools" / "make_tfrecords.py"

# Runs the tool once for each line of arguments that it reads. A process of its own keeps the tool's
# flags out of this one; a single one, because TensorFlow takes seconds to import.
_SERVER = """
import contextlib, io, json, runpy, sys
from absl import app, flags
from absl.testing import flagsaver
from tensorflow_datasets import testing

# A small dataset that TFDS knows by name and prepares without the network.
type("TinyMnist", (testing.DummyMnist,), {"__module__": testing.DummyMnist.__module__})

tool = runpy.run_path(sys.argv[1])
for line in sys.stdin:
    out, error, code = io.StringIO(), io.StringIO(), 0
    with flagsaver.flagsaver(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            tool["main"](flags.FLAGS(["make_tfrecords.py", *json.loads(line)]))
        except SystemExit as end:
            code = end.code
        except app.UsageError as usage:
            code = 1
            print("error:", usage, file=sys.stderr)
    print(json.dumps([code, out.getvalue(), error.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def call_tool():
    """Calls the tool with arguments; returns its exit code, stdout and stderr."""
    command = [sys.executable, "-c", _SERVER, str(TOOL)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as server:

        def call(*arguments) -> tuple[int, str, str]:
            print(json.dumps(list(map(str, arguments))), file=server.stdin, flush=True)
            return tuple(json.loads(server.stdout.readline()))

        yield call
        server.stdin.close()


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two classes in two splits, and a CSV that lists them."""
    root = tmp_path_factory.mktemp("source") / "My photos"
    rows = [("path", "split", "label", "class_name")]
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("daisy", "tulip")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = np.full((5, 4, 3), 40 * index, np.uint8)
                (folder / f"{index}.jpg").write_bytes(tf.io.encode_jpeg(pixels).numpy())
                rows.append((f"{split}/{name}/{index}.jpg", split, label, name))
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def test_a_folder_tree_becomes_a_dataset_and_its_csv_the_same_one(call_tool, photos, tmp_path):
    options = (f"--out_dir={tmp_path}", "--num_shards=train=2,test=1")
    code, out, error = call_tool(f"--source={photos}", *options)
    assert code == 0, error
    directory = tmp_path / "my_photos" / "1.0.0"
    size = sum(path.stat().st_size for path in directory.glob("*tfrecord*"))
    assert out == (
        "Found test 4, train 8 images of 2 classes.\n"
        "Ignored 1 other file (.csv 1).\n"
        f"\n{directory} is complete.\n"
        "  test                  4 examples, shards: 1\n"
        "  train                 8 examples, shards: 2\n"
        f"  2 classes, {size / 1e3:.1f} kB\n"
        f"\nCheck:  (cd {directory} && sha256sum -c checksums.sha256)\n"
        "Train:  python tools/train.py --gin_file=<recipe>.gin --model_dir=<folder> with the "
        f"recipe's data directory set to {directory}\n"
    )
    assert "12/12" in error  # the progress bar's last state
    info = tfds.builder_from_directory(directory).info
    assert info.splits["train"].shard_lengths == [4, 4]
    assert info.features["label"].names == ["daisy", "tulip"]

    code, out, error = call_tool(f"--source={photos / 'labels.csv'}", *options)
    assert code == 0, error
    assert f"{directory} was already complete." in out


def test_the_digits_need_nothing_but_the_tool(call_tool, tmp_path):
    code, out, _ = call_tool("--source=digits", f"--out_dir={tmp_path}", "--num_shards=2")
    assert code == 0
    assert out.startswith("Found test 360, train 1,437 images of 10 classes.\n")
    builder = tfds.builder("digits", data_dir=tmp_path)
    assert builder.info.splits["train"].shard_lengths == [718, 719]


def test_beam_writes_what_threads_write(call_tool, photos, tmp_path):
    digests = []
    for writer in ("num_workers=2", "beam_pipeline_options=runner=FnApiRunner"):
        out_dir = tmp_path / writer
        arguments = (f"--source={photos}", f"--out_dir={out_dir}", "--num_shards=2", f"--{writer}")
        code, out, error = call_tool(*arguments)
        assert code == 0, error
        assert "  train                 8 examples, shards: 2\n" in out
        assert "12/12" in error  # the progress bar's last state
        digests.append((out_dir / "my_photos" / "1.0.0" / "checksums.sha256").read_text())
    assert digests[0] == digests[1]


def test_bad_images_end_the_tool_with_their_names(call_tool, photos, tmp_path):
    root = tmp_path / "flowers"
    (root / "daisy").mkdir(parents=True)
    (root / "daisy" / "good.jpg").write_bytes((photos / "test" / "daisy" / "0.jpg").read_bytes())
    (root / "daisy" / "text.jpg").write_text("not an image")
    (root / "daisy" / "anim.jpg").write_bytes(b"GIF89a" + bytes(9))
    arguments = (f"--source={root}", f"--out_dir={tmp_path}", "--name=mine")
    code, _, error = call_tool(*arguments)
    assert code == 1
    assert error.endswith(
        "error: 2 images of 3 cannot be used; mend or delete them, or give --skip_bad_images to "
        "leave them out:\n"
        "  daisy/anim.jpg: is a GIF, not a JPEG or PNG; convert it or delete it\n"
        "  daisy/text.jpg: is a text file, not a JPEG or PNG; delete it\n"
    )
    assert not (tmp_path / "mine" / "1.0.0").exists()
    code, out, _ = call_tool(*arguments, "--skip_bad_images")
    assert code == 0
    assert "  2 bad images left out; see skipped.txt there\n" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--source={tmp}/no"],
            "{tmp}/no: no such folder; give the folder that holds the images",
        ),
        (
            ["--source=digits", "--label_column=y"],
            "--label_column is only for a CSV; --source is digits",
        ),
        (
            ["--source=digits", "--split=x"],
            "--split is only for a folder or a CSV; --source is digits",
        ),
        (
            ["--source=digits", "--num_shards=train:2"],
            "--num_shards=train:2: expected 8, or train=8,test=2",
        ),
        (
            ["--source={tmp}/1st"],
            "{tmp}/1st does not make a dataset name; give one with --name",
        ),
        (
            ["--source={tmp}/1st", "--class_names={tmp}/names.txt"],
            "{tmp}/names.txt: expected one class name a line, each once",
        ),
        (
            ["--source={tmp}/1st", "--class_names={tmp}/no.txt"],
            "[Errno 2] No such file or directory: '{tmp}/no.txt'",
        ),
        (
            ["--source={tmp}/1st", "--name=x", "--out_dir={tmp}/names.txt/data"],
            "{tmp}/names.txt/data/x: cannot be written (Not a directory); choose another --out_dir",
        ),
        (
            ["--source=digits", "photos"],
            "unexpected argument 'photos'; did you mean --source=photos?",
        ),
        (
            ["--source=tfds:cifar10", "--version=2.0.0"],
            "--version is only for images that are not TFDS' own; --source is tfds:cifar10",
        ),
        (
            ["--source=tfds:cifar10", "--num_shards=train=2"],
            "--num_shards: give one number for tfds: sources, as in 8",
        ),
        (
            ["--source=tfds:cifer10"],
            "tfds:cifer10: TFDS has no dataset 'cifer10'. Did you mean 'cifar10",
        ),
    ],
)
def test_wrong_sources_and_flags_are_answered(call_tool, tmp_path, arguments, message):
    (tmp_path / "1st" / "x").mkdir(parents=True)
    (tmp_path / "1st" / "x" / "a.png").write_bytes(b"")
    (tmp_path / "names.txt").write_text("x\nx\n")
    arguments = [argument.format(tmp=tmp_path) for argument in arguments]
    code, _, error = call_tool(f"--out_dir={tmp_path / 'out'}", *arguments)
    assert code == 1
    assert error.splitlines()[-1].startswith(f"error: {message.format(tmp=tmp_path)}")
    assert not (tmp_path / "out").exists()


def test_tfds_names_are_prepared_with_checksums(call_tool, tmp_path):
    arguments = ("--source=tfds:tiny_mnist", f"--out_dir={tmp_path}")
    code, out, error = call_tool(*arguments)
    assert code == 0, error
    directory = tmp_path / "tiny_mnist" / "3.0.1"
    assert f"{directory} is complete.\n" in out
    assert "  train                20 examples, shards: 1\n" in out
    assert "  10 classes, " in out
    subprocess.run(["sha256sum", "-c", "checksums.sha256"], cwd=directory, check=True)
    _, out, _ = call_tool(*arguments)
    assert f"{directory} was already complete." in out


def test_help_shows_an_example_of_every_source():
    command = [sys.executable, str(TOOL), "--help"]
    shown = subprocess.run(command, capture_output=True, text=True).stdout
    for source in ("digits", "photos/", "photos/labels.csv", "tfds:cifar10"):
        assert f"python tools/make_tfrecords.py --source={source} --out_dir=data" in shown
    assert "--[no]skip_bad_images" in shown
