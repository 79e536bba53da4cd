import errno
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from tiny_shards import (
    BAD_GIF,
    Stop,
    make_collection,
    make_many,
    png,
    tree_digest,
    write,
)

from vit_tf.data import dataset_folder, shard_writer
from vit_tf.data.image_files import ImageCollection, ImageRecord
from vit_tf.data.shard_plan import plan_shards
from vit_tf.data.shard_writer import encode_example


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A whole dataset of 90 images, written once."""
    return write(tmp_path_factory.mktemp("tiny"), num_workers=1).directory


def test_a_complete_dataset_is_left_alone(tiny):
    before = tree_digest(tiny)
    summary = write(tiny.parents[1])
    assert summary.already_complete
    assert (summary.split_sizes, summary.num_classes) == ({"test": 30, "train": 60}, 3)
    assert tree_digest(tiny) == before


def test_another_dataset_is_replaced_only_when_told(tmp_path):
    first = write(tmp_path)
    other = make_collection(i7=png(200))
    message = (
        f"{first.directory} already holds a dataset made from other images or options; "
        "give --overwrite to replace it, or another --name or --version"
    )
    with pytest.raises(FileExistsError, match=f"^{re.escape(message)}$"):
        write(tmp_path, other)
    replaced = write(tmp_path, other, overwrite=True)
    assert not replaced.already_complete
    assert write(tmp_path, other).already_complete
    assert [path.name for path in first.directory.parent.iterdir()] == ["1.0.0"]


def test_a_damaged_dataset_is_not_called_complete(tmp_path):
    directory = write(tmp_path).directory
    shard = directory / "tiny-test.tfrecord-00002-of-00005"
    shard.write_bytes(shard.read_bytes()[:-1])
    message = f"{shard} is missing or cut short; give --overwrite to write the dataset again"
    with pytest.raises(FileExistsError, match=f"^{re.escape(message)}$"):
        write(tmp_path)
    write(tmp_path, overwrite=True)
    assert write(tmp_path).already_complete


@pytest.mark.parametrize("moment", ["tidy", "sync"])
def test_a_replacement_stopped_while_it_is_published_is_finished(tmp_path, monkeypatch, moment):
    def stop(path):
        if path.name in ("1.0.0", "tiny"):  # after both renames
            raise Stop

    write(tmp_path)
    other = make_collection(i7=png(200))
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(dataset_folder, moment, stop)
        write(tmp_path, other, overwrite=True)
    directory = write(tmp_path, other).directory
    assert [path.name for path in directory.parent.iterdir()] == ["1.0.0"]
    whole = write(tmp_path / "whole", other).directory
    assert tree_digest(directory) == tree_digest(whole)


def test_two_writers_do_not_meet(tmp_path):
    message = f"another process is writing in {tmp_path / 'tiny'}; wait for it to finish"
    with (
        dataset_folder.locked(tmp_path / "tiny"),
        pytest.raises(FileExistsError, match=f"^{re.escape(message)}$"),
    ):
        write(tmp_path)


def stop_after(monkeypatch, images: int) -> None:
    encode, done = encode_example, []

    def encode_or_stop(record, image):
        done.append(record)
        if len(done) > images:
            raise Stop
        return encode(record, image)

    monkeypatch.setattr(shard_writer, "encode_example", encode_or_stop)


def test_a_stopped_run_goes_on_and_gives_the_same_bytes(tiny, tmp_path, monkeypatch):
    said = []
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, 40)
        write(tmp_path, num_workers=1)
    assert not (tmp_path / "tiny" / "1.0.0").exists()
    directory = write(tmp_path, say=said.append).directory
    assert said == [f"{directory}.incomplete: keeping 5 of 10 shards"]
    assert tree_digest(directory) == tree_digest(tiny)


def test_what_a_killed_attempt_left_goes_first(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, 40)
        write(tmp_path, num_workers=1)
    (progress,) = tmp_path.rglob(shard_writer.PROGRESS_FOLDER)
    (left := progress / f"x{shard_writer.ATTEMPT_SUFFIX}").mkdir()
    there = []
    write(tmp_path, say=lambda text: there.append(left.exists()))
    assert there == [False]


def test_two_attempts_at_one_shard_do_not_meet(tiny, tmp_path):
    shard = plan_shards(make_collection(), "tiny", num_shards=5).shards[0]
    (tmp_path / shard_writer.PROGRESS_FOLDER).mkdir()
    results = []

    def map_after_another_attempt(function, chunks):
        first, *rest = map(function, chunks)
        yield first
        results.append(shard_writer.write_shard(tmp_path, shard))
        yield from rest

    results.append(shard_writer.write_shard(tmp_path, shard, map_after_another_attempt))
    assert results[0] == results[1] == shard_writer.finished_result(tmp_path, shard)
    assert tree_digest(tmp_path)[shard.filename] == tree_digest(tiny)[shard.filename]


def test_a_stopped_run_with_other_images_starts_over(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, 40)
        write(tmp_path, num_workers=1)
    said = []
    directory = write(tmp_path, make_collection(i3=png(99)), say=said.append).directory
    assert said == [
        f"{directory}.incomplete: the images or options changed since it was begun; starting over"
    ]


def test_all_bad_images_are_listed_before_failing(tmp_path):
    collection = make_collection(i4=BAD_GIF, i50=b"", i70=png(70)[:40])
    message = (
        "3 images of 90 cannot be used; mend or delete them, or give --skip_bad_images to leave "
        "them out:\n"
        "  b/004.png: is a GIF, not a JPEG or PNG; convert it or delete it\n"
        "  b/070.png: truncated or corrupt PNG; replace it or delete it\n"
        "  c/050.png: is empty (0 bytes); replace it or delete it"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        write(tmp_path, collection)
    assert not (tmp_path / "tiny" / "1.0.0").exists()


def test_skipped_images_are_counted_and_listed(tmp_path):
    collection = make_collection(i4=BAD_GIF, i70=b"")
    with pytest.raises(ValueError, match="2 images of 90 cannot be used"):
        write(tmp_path, collection)
    said = []
    summary = write(tmp_path, collection, skip_bad_images=True, say=said.append)
    assert said[0] == f"{summary.directory}.incomplete: keeping 10 of 10 shards"
    assert said[1].startswith("skipped 2 bad images, listed in skipped.txt:\n  b/004.png: is a GIF")
    assert (summary.num_skipped, summary.split_sizes) == (2, {"test": 29, "train": 59})
    assert (summary.directory / "skipped.txt").read_text().splitlines() == [
        "b/004.png: is a GIF, not a JPEG or PNG; convert it or delete it",
        "b/070.png: is empty (0 bytes); replace it or delete it",
    ]
    data = tfds.builder_from_directory(summary.directory).as_dataset(split="train+test")
    assert len(list(data)) == 88
    assert write(tmp_path, collection).num_skipped == 2


def test_a_shard_of_bad_images_alone_is_an_error(tmp_path):
    records = [ImageRecord("x.png", 0, b"")]
    message = "tiny-train.tfrecord-00000-of-00001 would be empty: all 1 of its images are bad"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        write(tmp_path, ImageCollection(("x",), {"train": records}), skip_bad_images=True)


def test_a_file_that_vanished_is_a_bad_image(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(1))
    (encoded,) = shard_writer._check_and_encode([ImageRecord("a.png", 0, tmp_path / "no.png")])
    assert encoded == ("a.png", None, "cannot be read (No such file or directory)")


def test_too_little_space_is_said_before_writing(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    needed = plan_shards(make_collection(), "tiny").num_bytes
    message = (
        f"{tmp_path}/tiny/1.0.0.incomplete: not enough disk space: about {needed / 1e3:.1f} kB are "
        "needed, 1.0 kB are free; make room or choose another --out_dir"
    )
    with pytest.raises(OSError, match=re.escape(message)) as caught:
        write(tmp_path)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    "fault",
    [OSError(errno.ENOSPC, "No space left"), tf.errors.ResourceExhaustedError(None, None, "full")],
)
def test_a_disk_that_fills_up_leaves_only_whole_shards(tiny, tmp_path, monkeypatch, fault):
    class FullWriter(tf.io.TFRecordWriter):
        def write(self, record):
            if "00003-of-00005" in str(self._path):
                raise fault
            super().write(record)

        def __init__(self, path):
            self._path = path
            super().__init__(path)

    work = tmp_path / "tiny" / "1.0.0.incomplete"
    with monkeypatch.context() as patch, pytest.raises(OSError) as caught:
        patch.setattr(tf.io, "TFRecordWriter", FullWriter)
        write(tmp_path)
    assert re.fullmatch(
        re.escape(f"{work}/tiny-test.tfrecord-00003-of-00005: the disk is full; about ")
        + r"\d+\.\d kB are needed for what is still to be written\. Make room and run the same "
        "command again: it keeps the shards that are whole",
        caught.value.strerror,
    )
    assert len(list(work.glob("*.tfrecord*"))) == 3
    assert not (tmp_path / "tiny" / "1.0.0").exists()
    assert tree_digest(write(tmp_path).directory) == tree_digest(tiny)


def test_a_limit_of_the_system_on_file_size_is_a_clear_error(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        with pytest.raises(OSError, match=r"tiny-test\.tfrecord-00000-of-00001: cannot be written"):
            write(tmp_path, num_shards=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "tiny").rglob("*.tfrecord*"))


def test_a_read_only_target_is_named(tmp_path, monkeypatch):
    def mkdir(path, *args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(OSError) as caught:
        write(tmp_path)
    assert caught.value.strerror == (
        f"{tmp_path}/tiny: cannot be written (Read-only file system); choose another --out_dir"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "My-Set"}, "dataset name 'My-Set': use small letters, digits and '_', a letter"),
        ({"version": "1.0"}, "version '1.0': expected three numbers, as in 1.0.0"),
        ({"num_shards": 0}, "num_shards must be at least 1, got 0"),
        ({"num_shards": {"val": 2}}, "num_shards names split 'val'; the splits are ['test', 'tr"),
        ({"num_workers": 0}, "num_workers must be at least 1, got 0"),
        (
            {"out_dir": "gs://bucket/data"},
            "out_dir gs://bucket/data: shards are written to a folder, not to a URL; give a",
        ),
        ({"shard_bytes": 0}, "shard_bytes must be at least 1, got 0"),
        (
            {"collection": ImageCollection(("a",), {"train": [ImageRecord("x", 1, b"")]})},
            "x: label 1 is outside 0..0 (1 class names)",
        ),
        (
            {"collection": ImageCollection(("a",), {"train": [ImageRecord("x", 0, b"")] * 2})},
            "x occurs twice in split 'train'; list it once",
        ),
        ({"collection": ImageCollection(("a",), {"train": []})}, "there are no images to write"),
        (
            {"collection": ImageCollection(("a",), {"a b": [ImageRecord("x", 0, b"")]})},
            "split name 'a b': use letters, digits and '_'",
        ),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        write(**{"out_dir": tmp_path, **options})
    assert not list(tmp_path.iterdir())


def test_beam_that_is_not_installed_is_asked_for_before_writing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(ImportError, match=r"install it with pip install 'vit_tf\[beam\]'$"):
        write(tmp_path, beam_options=["--runner=DirectRunner"])
    assert not list(tmp_path.iterdir())


_KILLED_SCRIPT = """
import sys
from tiny_shards import make_many, write
collection = make_many()
print("writing", flush=True)
write(sys.argv[1], collection, num_shards=40)
"""


@pytest.mark.slow
def test_killed_at_any_moment_leaves_nothing_that_looks_whole(tmp_path):
    whole = write(tmp_path / "whole", make_many(), num_shards=40).directory
    out, random = tmp_path / "killed", np.random.default_rng(0)
    final, work = out / "tiny" / "1.0.0", out / "tiny" / "1.0.0.incomplete"
    for shards_before_the_kill in (0, 7, 19, 32):
        process = subprocess.Popen(
            [sys.executable, "-c", _KILLED_SCRIPT, str(out)],
            cwd=Path(__file__).parent,
            stdout=subprocess.PIPE,
        )
        assert process.stdout.readline() == b"writing\n"
        while len(list(work.glob("*-of-00040"))) < shards_before_the_kill:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not final.exists()
        with pytest.raises(Exception, match="Could not read dataset info"):
            tfds.builder_from_directory(work)
        for path in work.glob("*-of-00040"):  # what bears a shard's name is a whole shard
            assert tree_digest(work)[path.name] == tree_digest(whole)[path.name]
    assert tree_digest(write(out, make_many(), num_shards=40).directory) == tree_digest(whole)
