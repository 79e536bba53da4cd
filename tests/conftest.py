"""Fixtures shared by the whole suite."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference checkpoints (`golden/`) and real images (`data/`)."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("VIT_TF_SHARED", root.parent / "shared"))
    if not (folder / "golden").is_dir():
        message = f"{folder} holds no golden/; set VIT_TF_SHARED to the folder that does"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder
