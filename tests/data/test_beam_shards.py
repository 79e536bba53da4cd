import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability import prism_runner
from tiny_shards import BAD_GIF, make_collection, make_many, png, tree_digest, write

from vit_tf.data import beam_shards, shard_writer
from vit_tf.data.image_files import ImageCollection, list_image_folder
from vit_tf.data.shard_plan import plan_shards

DIRECT = ["--runner=DirectRunner"]


@pytest.fixture(autouse=True)
def no_downloads(monkeypatch):
    """Beam's DirectRunner looks for a binary on the network first and does without if it must."""

    def refuse(*args):
        raise RuntimeError("tests do not download")

    monkeypatch.setattr(prism_runner.PrismRunner, "run_pipeline", refuse)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> dict[str, str]:
    """Digests of the files that threads write for the 90 images."""
    return tree_digest(write(tmp_path_factory.mktemp("tiny")).directory)


@pytest.fixture
def tree(tmp_path) -> ImageCollection:
    """The first 12 of them as files, listed by a path relative to the working directory."""
    for record in make_collection().splits["train"][:12]:
        path = tmp_path / "photos" / record.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.image)
    return list_image_folder(os.path.relpath(tmp_path / "photos"))


def test_beam_writes_the_bytes_that_threads_write(tiny, tmp_path):
    summary = write(tmp_path, beam_options=DIRECT)
    assert tree_digest(summary.directory) == tiny
    assert summary.split_sizes == {"test": 30, "train": 60}
    assert [path.name for path in summary.directory.parent.iterdir()] == ["1.0.0"]
    assert write(tmp_path).already_complete


def test_image_files_are_read_by_the_workers(tree, tmp_path, monkeypatch):
    expected = tree_digest(write(tmp_path / "threads", tree).directory)
    written = beam_shards.write_ordered_shard

    def write_elsewhere(filename, work):
        with monkeypatch.context() as patch:
            patch.chdir("/")
            written(filename, work)

    monkeypatch.setattr(beam_shards, "write_ordered_shard", write_elsewhere)
    directory = write(tmp_path / "beam", tree, beam_options=DIRECT).directory
    assert tree_digest(directory) == expected


def test_elements_are_names_however_many_images(monkeypatch, tmp_path):
    elements = []
    create = beam.Create
    monkeypatch.setattr(beam, "Create", lambda values: elements.extend(values) or create(values))
    write(tmp_path, make_many(), num_shards=2, beam_options=DIRECT)
    assert elements == [f"tiny-train.tfrecord-0000{i}-of-00002" for i in range(2)]


def test_every_image_is_counted_once(tmp_path):
    work, counted = tmp_path / "work", []
    shards = plan_shards(make_collection(), "tiny", num_shards=5).shards
    (work / shard_writer.PROGRESS_FOLDER).mkdir(parents=True)
    options = beam_shards.pipeline_options(DIRECT)
    beam_shards.write_with_beam(work, shards, counted.append, options)
    assert sorted(counted) == [6] * 5 + [12] * 5


def fail_on(monkeypatch, filename: str, error: BaseException) -> None:
    encode = shard_writer.encode_example

    def encode_or_fail(record, image):
        if record.filename == filename:
            raise error
        return encode(record, image)

    monkeypatch.setattr(shard_writer, "encode_example", encode_or_fail)


def test_a_failed_pipeline_goes_on_with_the_shards_it_lacks(tiny, tmp_path, monkeypatch):
    plan = plan_shards(make_collection(), "tiny", num_shards=5)
    work = tmp_path / "tiny" / "1.0.0.incomplete"
    with monkeypatch.context() as patch, pytest.raises(OSError) as caught:
        fail_on(patch, plan.shards[4].records[0].filename, OSError(28, "No space left"))
        write(tmp_path, beam_options=DIRECT)
    assert re.fullmatch(
        re.escape(f"{work}: the Beam pipeline failed (OSError: [Errno 28] ")
        + re.escape(f"{work}/{plan.shards[4].filename}: the disk is full; about ")
        + r"\d\.\d kB are needed .* \[while running 'Write'\]\); run the same command again: it "
        "keeps the shards that are whole",
        caught.value.strerror,
    )
    whole = {path: path.stat().st_mtime_ns for path in work.glob("*.tfrecord*")}
    assert len(whole) == 4
    said = []
    directory = write(tmp_path, beam_options=DIRECT, say=said.append).directory
    assert said == [f"{work}: keeping 4 of 10 shards"]
    assert tree_digest(directory) == tiny
    for path, changed in whole.items():
        assert (directory / path.name).stat().st_mtime_ns == changed


def test_threads_go_on_where_beam_stopped(tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(OSError):
        fail_on(patch, "a/003.png", ValueError("no"))
        write(tmp_path, beam_options=DIRECT)
    assert tree_digest(write(tmp_path).directory) == tiny


def test_a_second_attempt_at_a_whole_shard_leaves_it(tmp_path):
    shard = plan_shards(make_collection(), "tiny", num_shards=5).shards[0]
    (tmp_path / shard_writer.PROGRESS_FOLDER).mkdir()
    beam_shards._write_order(tmp_path, shard)
    beam_shards.write_ordered_shard(shard.filename, str(tmp_path))
    changed = (tmp_path / shard.filename).stat().st_mtime_ns
    beam_shards.write_ordered_shard(shard.filename, str(tmp_path))
    assert (tmp_path / shard.filename).stat().st_mtime_ns == changed


def test_an_order_is_read_as_it_was_written(tree, tmp_path):
    (tmp_path / shard_writer.PROGRESS_FOLDER).mkdir()
    (of_files,) = plan_shards(tree, "tiny", num_shards=1).shards
    (of_bytes, _) = plan_shards(make_collection(), "tiny", num_shards=1).shards
    for shard in (of_files, of_bytes):
        beam_shards._write_order(tmp_path, shard)
        read = beam_shards._read_order(tmp_path, shard.filename)
        assert [(r.filename, r.label) for r in read.records] == [
            (r.filename, r.label) for r in shard.records
        ]
        assert [r.read() for r in read.records] == [r.read() for r in shard.records]
        assert (read.split, read.num_bytes) == (shard.split, shard.num_bytes)


def test_bad_images_are_listed_then_skipped_and_counted(tmp_path):
    collection = make_collection(i4=BAD_GIF, i70=png(70)[:40])
    message = (
        "2 images of 90 cannot be used; mend or delete them, or give --skip_bad_images to leave "
        "them out:\n"
        "  b/004.png: is a GIF, not a JPEG or PNG; convert it or delete it\n"
        "  b/070.png: truncated or corrupt PNG; replace it or delete it"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        write(tmp_path / "beam", collection, beam_options=DIRECT)
    options = {"skip_bad_images": True}
    by_beam = write(tmp_path / "beam", collection, beam_options=DIRECT, **options)
    by_threads = write(tmp_path / "threads", collection, **options)
    assert (by_beam.num_skipped, by_beam.split_sizes) == (2, {"test": 29, "train": 59})
    assert tree_digest(by_beam.directory) == tree_digest(by_threads.directory)


def test_a_worker_without_the_folder_says_so():
    message = r"^/nowhere is not on Beam worker \S+; mount the folder of datasets and that of the "
    with pytest.raises(FileNotFoundError, match=message):
        beam_shards.write_ordered_shard("x", "/nowhere")


def test_beam_flags_may_come_without_dashes():
    from apache_beam.options.pipeline_options import DirectOptions, StandardOptions

    options = beam_shards.pipeline_options(["runner=DirectRunner", "--direct_num_workers=3"])
    assert options.view_as(StandardOptions).runner == "DirectRunner"
    assert options.view_as(DirectOptions).direct_num_workers == 3


def test_an_unknown_runner_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="Unexpected pipeline runner: DirctRunner"):
        write(tmp_path, beam_options=["runner=DirctRunner"])
    assert not list(tmp_path.iterdir())


def test_a_refused_value_is_named(tmp_path):
    message = (
        "Beam does not accept runner=DirectRunner direct_num_workers=x: argument "
        "--direct_num_workers: invalid int value: 'x'"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        write(tmp_path, beam_options=["runner=DirectRunner", "direct_num_workers=x"])


def test_threads_and_beam_together_are_refused(tmp_path):
    message = "num_workers=2 is the number of threads without Beam; say in beam_options how many"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        write(tmp_path, beam_options=DIRECT, num_workers=2)


_KILLED_SCRIPT = """
import sys
from tiny_shards import make_many, write
# What DirectRunner runs by where it finds no binary; asked for by name, it looks for none.
options = ["runner=FnApiRunner", "direct_running_mode=multi_processing", "direct_num_workers=2"]
write(sys.argv[1], make_many(), num_shards=40, beam_options=options)
"""


@pytest.mark.slow
def test_several_processes_killed_and_started_again_give_the_same_bytes(tmp_path):
    whole = write(tmp_path / "whole", make_many(), num_shards=40).directory
    out = tmp_path / "killed"
    work = out / "tiny" / "1.0.0.incomplete"
    command = [sys.executable, "-c", _KILLED_SCRIPT, str(out)]
    here = {"cwd": Path(__file__).parent}
    with subprocess.Popen(command, start_new_session=True, **here) as process:
        while len(list(work.glob("*-of-00040"))) < 5:
            assert process.poll() is None
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
    kept = {path.name: path.stat().st_mtime_ns for path in work.glob("*-of-00040")}
    assert 5 <= len(kept) < 40
    subprocess.run(command, check=True, **here)
    directory = out / "tiny" / "1.0.0"
    assert tree_digest(directory) == tree_digest(whole)
    for name, changed in kept.items():
        assert (directory / name).stat().st_mtime_ns == changed
    assert json.loads((directory / "shard_plan.json").read_text())["shards"].keys() >= kept.keys()
