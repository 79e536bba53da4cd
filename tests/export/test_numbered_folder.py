"""Numbered folders appear whole, whatever happens to the process that writes them."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from vit_tf.export import numbered_folder
from vit_tf.export.numbered_folder import writing_folder, writing_next_number


def write(folder, text="whole"):
    with writing_next_number(str(folder)) as written:
        Path(written.aside).mkdir()
        (Path(written.aside) / "file").write_text(text)
    return Path(written.path)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_numbers_count_on_from_the_largest(tmp_path):
    for name in ("2", "10", "best", "10.old"):
        (tmp_path / name).mkdir()
    assert write(tmp_path) == tmp_path / "11"
    assert (tmp_path / "11" / "file").read_text() == "whole"


def test_a_number_that_appears_meanwhile_is_left_alone(tmp_path):
    with writing_next_number(str(tmp_path)) as written:
        Path(written.aside).mkdir()
        (tmp_path / "1").mkdir()
        (tmp_path / "1" / "theirs").touch()
    assert written.path == str(tmp_path / "2")
    assert names(tmp_path) == ["1", "2"]
    assert names(tmp_path / "1") == ["theirs"]


def test_a_number_taken_between_looking_and_moving_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "theirs").touch()
    seen = [[], [1]]
    monkeypatch.setattr(numbered_folder, "_numbers", lambda folder: seen.pop(0))
    assert write(tmp_path) == tmp_path / "2"
    assert names(tmp_path / "1") == ["theirs"]


def test_a_file_is_no_folder_of_exports(tmp_path):
    file = tmp_path / "exports"
    file.write_text("mine")
    with pytest.raises(NotADirectoryError, match="exports is a file; .* name a folder for them"):
        write(file)
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("no"), ValueError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (tf.errors.ResourceExhaustedError(None, None, "No space left\non device"), OSError),
    ],
)
def test_nothing_is_left_when_the_block_raises(tmp_path, raised, expected):
    with pytest.raises(expected) as caught, writing_next_number(str(tmp_path)) as written:
        Path(written.aside).mkdir()
        (Path(written.aside) / "file").write_text("half")
        raise raised
    assert names(tmp_path) == []
    if expected is OSError:
        assert str(caught.value) == (
            f"could not write an export to {tmp_path}: No space left on device. Nothing was "
            "published; make room, or choose another --export_dir"
        )


def test_what_a_killed_process_left_is_removed_and_what_runs_is_kept(tmp_path):
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with subprocess.Popen(sleep) as killed, subprocess.Popen(sleep) as running:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        gone, stays = (
            f".incomplete-{socket.gethostname()}-{process.pid}" for process in (killed, running)
        )
        elsewhere = f".incomplete-another-machine-{killed.pid}"
        own = f".incomplete-{socket.gethostname()}-{os.getpid()}"
        for name in (gone, stays, elsewhere, own):
            (tmp_path / name).mkdir()
        write(tmp_path)
        assert names(tmp_path) == sorted([stays, elsewhere, "1"])
        running.kill()


def test_a_folder_of_ones_own_name_is_there_whole_or_not(tmp_path):
    path = tmp_path / "made" / "onnx"
    with pytest.raises(KeyboardInterrupt), writing_folder(str(path)) as aside:
        Path(aside).mkdir()
        raise KeyboardInterrupt
    assert names(tmp_path / "made") == []
    with writing_folder(str(path)) as aside:
        Path(aside).mkdir()
        (Path(aside) / "file").write_text("whole")
        assert not path.exists()
    assert names(tmp_path / "made") == ["onnx"]
    with pytest.raises(FileExistsError, match="onnx is there already"), writing_folder(str(path)):
        pass
    assert (path / "file").read_text() == "whole"
