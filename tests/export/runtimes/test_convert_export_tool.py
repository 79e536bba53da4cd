"""tools/convert_export.py converts, measures, and says errors in a line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def convert_export(*arguments):
    return subprocess.run(
        [sys.executable, "tools/convert_export.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_kinds_are_converted_and_measured_on_the_whole_split(served, digits_dir, tmp_path):
    pytest.importorskip("ai_edge_litert")
    done = convert_export(
        f"--saved_model={served.folder}",
        f"--output_dir={tmp_path}",
        "--kinds=litert_float32,litert_int8",
        f"--data_dir={digits_dir}",
        "--representative_split=train",
        "--representative_images=20",
    )
    assert done.returncode == 0, done.stderr
    assert "360 images of digits/1.0.0 test:" in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    names = [line.split("|")[1].strip() for line in lines]
    assert names == ["kind", "saved_model", "litert_float32", "litert_int8"]
    assert lines[1].split("|")[5] == lines[2].split("|")[5]  # the accuracy
    assert sorted(path.name for path in tmp_path.iterdir()) == ["comparison.json", *names[2:]]
    assert len(json.loads((tmp_path / "comparison.json").read_text())["rows"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ("onyx", r"^error: no kind 'onyx'; there are .*\. Did you mean 'onnx'\?$"),
        (
            "litert_int8",
            "^error: litert_int8 takes the ranges of its activations from images; give some .--d",
        ),
    ],
)
def test_an_error_is_one_line_and_nothing_is_written(served, tmp_path, kinds, message):
    done = convert_export(
        f"--saved_model={served.folder}", f"--output_dir={tmp_path / 'out'}", f"--kinds={kinds}"
    )
    assert done.returncode == 1
    assert any(re.search(message, line) for line in done.stderr.splitlines())
    assert not (tmp_path / "out").exists()
