"""tools/predict.py asks a server: a double of TensorFlow Serving, not its binary."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from serving_double import ServingDouble, models_of

from vit_tf.export.classify_files import classify_files
from vit_tf.export.predictors import SavedModelPredictor
from vit_tf.training.named_predictor import load_predictor

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def double(served_folder):
    double = ServingDouble(
        models_of("/models/digits/model.config", f"{served_folder}:/models/digits")
    )
    yield double
    double.close()


@pytest.fixture
def files(tmp_path, digit_images):
    (tmp_path / "b.png").write_text("no image")
    for name, image in zip("ac", digit_images, strict=False):
        (tmp_path / f"{name}.png").write_bytes(image)
    return [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"]


def test_a_server_answers_as_the_saved_model(double, served_folder, files):
    expected_problems, problems = [], []
    saved = SavedModelPredictor(str(served_folder))
    expected = list(classify_files(saved, files, 2, expected_problems))
    for address in double.addresses:
        problems.clear()
        predictor = load_predictor(server=address, served_model="digits", served_version="1")
        rows = list(classify_files(predictor, files, 2, problems))
        assert [(file, made.names) for file, made in rows] == [
            (file, made.names) for file, made in expected
        ]
        for (_, ours), (_, theirs) in zip(rows, expected, strict=True):
            np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-6)
        assert problems == expected_problems and len(problems) == 1


@pytest.mark.slow
def test_the_tool_asks_a_server(double, files):
    done = subprocess.run(
        [
            sys.executable,
            "tools/predict.py",
            f"--server={double.addresses[0]}",
            "--served_model=digits",
            "--format=jsonl",
            str(files[0].parent),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["file"] for row in rows] == [str(files[0]), str(files[2])]
    assert f"error: {files[1]}: " in done.stderr
