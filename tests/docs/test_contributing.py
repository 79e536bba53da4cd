"""The steps of CONTRIBUTING.md, taken in a copy of the project, give a model that works."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import blocks as pages
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "CONTRIBUTING.md"
FILES = {block.subject: block.text for block in pages.blocks(PAGE) if block.verb == "file"}
# The rooms that the picture leads to each room, those before them included.
ROOMS = {
    "layers": set(),
    "models": {"layers"},
    "checkpoints": {"layers", "models"},
    "analysis": {"layers", "models"},
    "data": set(),
    "compilation": set(),
    "evaluation": {"layers", "models", "analysis", "data"},
    "export": {"layers", "models", "analysis", "data"},
}
USE = """
import numpy as np, vit_tf
from pathlib import Path
assert Path(vit_tf.__file__).is_relative_to(Path.cwd()), vit_tf.__file__
assert "bag_s4" in vit_tf.list_models("bag*")
model = vit_tf.create_model("Bag-S/4", image_size=(32, 48), num_classes=7)
assert model(np.ones((2, 32, 48, 3), "float32")).shape == (2, 7)
model.save("bag.keras")
vit_tf.save_checkpoint(model, "again.keras")
print(vit_tf.load_checkpoint(model, "bag.keras"))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project in which the files of the page were written."""
    copy = tmp_path_factory.mktemp("copy")
    for folder in ("vit_tf", "gin", "tools"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "tests/conftest.py"):
        (copy / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, copy / file)
    for name, text in FILES.items():
        assert not (copy / name).exists(), f"{name} is no toy any more"
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text, encoding="utf-8")
    return copy


def run(project, command):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(project)}
    return subprocess.run(
        ["bash", "-c", command], cwd=project, env=environment, capture_output=True, text=True
    )


def imported(room):
    """The other rooms that files of a room import from."""
    nodes = [n for f in (ROOT / "vit_tf" / room).rglob("*.py") for n in ast.walk(parsed(f))]
    names = [n.module for n in nodes if isinstance(n, ast.ImportFrom)]
    names += [alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names]
    names += [
        f"vit_tf.{alias.name}"
        for n in nodes
        if isinstance(n, ast.ImportFrom) and n.module == "vit_tf"
        for alias in n.names
    ]
    parts = [name.split(".") for name in names if name.startswith("vit_tf.")]
    return {part[1] for part in parts} & {*ROOMS, "training"} - {room}


def parsed(file):
    return ast.parse(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_the_picture_says(room):
    assert room in PAGE.read_text(encoding="utf-8")
    assert imported(room) <= ROOMS[room]


def test_the_picture_shows_every_room():
    rooms = {path.parent.name for path in (ROOT / "vit_tf").glob("*/__init__.py")}
    assert rooms == {*ROOMS, "training"}


@pytest.mark.slow
def test_files_are_formatted_and_linted(project):
    python = [name for name in FILES if name.endswith(".py")]
    done = run(project, f"ruff format --diff {' '.join(python)} && ruff check {' '.join(python)}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_model_is_known_computes_and_is_saved(project):
    done = run(project, f"python -c '{USE}'")
    assert done.returncode == 0, done.stderr
    assert " 0 missing, 0 unexpected, 0 mismatched" in done.stdout


@pytest.mark.slow
def test_the_commands_that_are_shown_succeed(project):
    (block,) = (block for block in pages.blocks(PAGE) if block.verb == "run")
    tested, planned = (run(project, line) for line in block.text.splitlines())
    assert tested.returncode == 0 and "1 passed" in tested.stdout, tested.stdout + tested.stderr
    assert planned.returncode == 2, planned.stdout + planned.stderr  # the data are not there
    assert "Bag-S/4" in planned.stdout or "bag_s4" in planned.stdout
