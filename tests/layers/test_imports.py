"""The rooms of layers and models stay free of TensorFlow, so that they run on any Keras backend."""

import ast
from pathlib import Path

import pytest

import vit_tf

ROOT = Path(vit_tf.__file__).parent
SHARED = ROOT / "suggestions.py"  # every room may import it, and it imports none
FILES = [SHARED, *sorted([*ROOT.glob("layers/*.py"), *ROOT.glob("models/*.py")])]
ALLOWED = {
    ROOT.name: set(),
    "layers": {"layers", SHARED.stem},
    "models": {"layers", "models", SHARED.stem},
}


def imported_modules(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_imports_no_tensorflow_and_no_room_above(path):
    for module in imported_modules(path):
        package, *rooms = module.split(".")
        assert package not in {"tensorflow", "tf_keras", "jax", "torch"}, module
        if package == "vit_tf":
            assert rooms[0] in ALLOWED[path.parent.name], module
