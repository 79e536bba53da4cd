"""tools/inspect_data.py as a user calls it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_records

ROOT = Path(__file__).resolve().parents[2]


def inspect(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "tools/inspect_data.py", "--seconds=0.2", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_recipes_data_is_shown(digits_dir, tmp_path):
    data_dir = f"--gin_param=DATA_DIR = '{digits_dir}'"
    done = inspect("--gin_file=gin/quickstart.gin", data_dir, "--input=eval", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["readable"] == sum(summary["class_counts"].values()) == 360
    assert summary["preprocess"] == "decode|resize(8)|value_range(-1, 1)"
    assert (summary["files_compared_with_checksums"], summary["bad_records"]) == (2, [])
    assert {path.name for path in tmp_path.glob("*.png")} == {
        "batch.png", "classes.png", "sizes.png"}  # fmt: skip


@pytest.mark.slow
def test_a_flipped_byte_in_a_pattern_of_files_is_found(digits_dir, tmp_path):
    shutil.copytree(digits_dir, tmp_path / "copy")
    shard = tmp_path / "copy" / "digits-test.tfrecord-00001-of-00002"
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    features = ("--image_feature=image", "--label_feature=label", "--num_classes=11")
    done = inspect(f"--source={tmp_path}/copy/*test*", *features, f"--out={tmp_path}/out")
    assert done.returncode == 1
    assert f"{shard}: the content is not what checksums.sha256 says" in done.stderr
    assert f"error: {shard} record 4 (byte " in done.stderr and "CRC mismatch" in done.stderr
    assert "empty classes     10" in done.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["records"], summary["readable"]) == (360, 359)


@pytest.mark.slow
def test_several_labels_an_image_are_counted_each(tmp_path):
    (tmp_path / "data").mkdir()
    folder = tiny_records.write_real(tmp_path / "data", {"validation": [7]})
    data = (f"--source={folder}", "--split=validation", "--preprocess=decode|resize(8)")
    done = inspect(*data, "--label_feature=real_label", f"--out={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    assert "without a label   2" in done.stdout
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["without_label"] == 2
    counts = {"ant": 1, "bee": 3, "cat": 1, "dog": 1, "elk": 2}
    assert summary["class_counts"] == counts
    done = inspect(*data, f"--out={tmp_path}/out")
    assert done.returncode == 2 and "name the one to use with label_feature" in done.stderr


@pytest.mark.slow
def test_what_cannot_be_inspected_is_one_sentence(tmp_path):
    done = inspect("--source=/nowhere", f"--out={tmp_path}")
    assert done.returncode == 2
    assert "error: Data directory /nowhere does not exist." in done.stderr
