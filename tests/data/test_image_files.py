import os
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from vit_tf.data.image_files import (
    describe_ignored,
    image_format,
    image_problem,
    list_image_folder,
    list_some,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 12, 3)).astype(np.uint8)
PNG = tf.io.encode_png(PIXELS).numpy()
JPEG = tf.io.encode_jpeg(PIXELS).numpy()
LAYOUTS = "expected <class>/<image> or <split>/<class>/<image>"


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PNG)


def test_class_folders_are_one_split(tmp_path):
    touch(tmp_path, "cat/b.png", "cat/a.JPG", "ant/1.jpeg")
    collection = list_image_folder(tmp_path, split="all")
    assert collection.class_names == ("ant", "cat")
    found = [(record.filename, record.label) for record in collection.splits["all"]]
    assert sorted(found) == [("ant/1.jpeg", 0), ("cat/a.JPG", 1), ("cat/b.png", 1)]
    assert collection.splits["all"][0].read() == PNG


def test_split_folders_share_their_classes(tmp_path):
    touch(tmp_path, "train/ant/1.png", "train/cat/1.png", "test/cat/2.png")
    collection = list_image_folder(tmp_path)
    assert collection.class_names == ("ant", "cat")
    (test_record,) = collection.splits["test"]
    assert (test_record.filename, test_record.label) == ("test/cat/2.png", 1)
    assert len(collection.splits["train"]) == 2


def test_other_files_are_counted_and_hidden_ones_passed_over(tmp_path):
    touch(tmp_path, "cat/1.png", "cat/notes.txt", "labels.csv", "cat/.DS_Store", ".git/a/b.png")
    collection = list_image_folder(tmp_path)
    assert describe_ignored(collection.ignored) == "2 other files (.csv 1, .txt 1)"
    assert len(collection.splits["train"]) == 1


def test_class_names_set_the_label_order(tmp_path):
    touch(tmp_path, "ant/1.png", "cat/1.png")
    collection = list_image_folder(tmp_path, class_names=["cat", "bee", "ant"])
    assert collection.class_names == ("cat", "bee", "ant")
    assert {r.filename: r.label for r in collection.splits["train"]} == {
        "ant/1.png": 2,
        "cat/1.png": 0,
    }


def test_linked_class_folders_are_followed(tmp_path):
    touch(tmp_path, "elsewhere/1.png")
    (tmp_path / "root").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "root" / "cat")
    assert list_image_folder(tmp_path / "root").class_names == ("cat",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), f"{{root}} holds no JPEG or PNG files (it is empty); {LAYOUTS}"),
        (
            ("cat/a.webp", "cat/b.webp"),
            f"{{root}} holds no JPEG or PNG files (only 2 other files (.webp 2)); {LAYOUTS}",
        ),
        (
            ("a.png", "b.png"),
            f"{{root}} holds 2 images but no class folders; {LAYOUTS}",
        ),
        (
            ("cat/a.png", "b.png", "dog/x/c.png"),
            f"{{root}}: 2 images lie outside the class folders; {LAYOUTS} throughout, move or "
            "delete these:\n  b.png\n  dog/x/c.png",
        ),
        (
            ("cat/a.png", "dog/a.gif"),
            "{root}: class folder 'dog' holds no JPEG or PNG; fill it or delete it",
        ),
    ],
)
def test_folders_that_are_no_class_tree_say_what_is_wrong(tmp_path, files, message):
    touch(tmp_path, *files)
    with pytest.raises(ValueError, match=f"^{re.escape(message.format(root=tmp_path))}$"):
        list_image_folder(tmp_path)


def test_missing_folder_is_named(tmp_path):
    message = f"{tmp_path}/no: no such folder; give the folder that holds the images"
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        list_image_folder(tmp_path / "no")


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    touch(tmp_path, "cat/1.png", "dog/1.png")
    scandir = os.scandir

    def refuse_dogs(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_dogs)
    with pytest.raises(PermissionError, match=re.escape(f"Permission denied: '{tmp_path}/dog'")):
        list_image_folder(tmp_path)


def test_folder_outside_the_class_names_gets_the_closest(tmp_path):
    touch(tmp_path, "tulipe/1.png")
    message = (
        f"{tmp_path}: class folder 'tulipe' is not among the 2 class names. Did you mean 'tulip'?"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        list_image_folder(tmp_path, class_names=["daisy", "tulip"])


@pytest.mark.parametrize("data", [PNG, JPEG, tf.io.encode_png(PIXELS[..., :1]).numpy()])
def test_whole_images_have_no_problem(data):
    assert image_problem(data) is None


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is empty (0 bytes); replace it or delete it"),
        (b"GIF89a" + bytes(20), "is a GIF, not a JPEG or PNG; convert it or delete it"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "is a WebP, not a JPEG or PNG; convert it or delete it"),
        (b"\0\0\0\x18ftypavif", "is an AVIF, not a JPEG or PNG; convert it or delete it"),
        (b"<html>not found\n", "is a text file, not a JPEG or PNG; delete it"),
        ("ümlaut ".encode() * 100, "is a text file, not a JPEG or PNG; delete it"),
        (b"\x01\x02\xfe\xff9", "is not a JPEG or PNG (begins with bytes 01 02 fe ff); delete it"),
        (JPEG[:-40], "truncated or corrupt JPEG; replace it or delete it"),
        (JPEG[:-2], "truncated or corrupt JPEG; replace it or delete it"),
        (PNG[: len(PNG) // 2], "truncated or corrupt PNG; replace it or delete it"),
    ],
)
def test_bad_bytes_are_called_what_they_are(data, problem):
    assert image_problem(data) == problem


@pytest.mark.parametrize("cut", range(1, len(JPEG), 37))
def test_a_jpeg_cut_anywhere_is_found(cut):
    assert image_problem(JPEG[:cut]) is not None


def test_the_bytes_decide_the_format_not_the_name():
    assert image_format(PNG) == "PNG"
    assert image_format(JPEG) == "JPEG"
    assert image_format(b"hello") is None


def test_long_lists_end_in_a_count():
    lines = list_some(f"{i}.png" for i in range(23)).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "  ... and 3 more"
