"""The layers and models give the same numbers on JAX; an optional check, `pip install jax`."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import backend_outputs
import numpy as np
import pytest

from vit_tf.models import list_families

SCRIPT = Path(backend_outputs.__file__)
ROOT = SCRIPT.parents[2]


def test_every_family_has_a_model():
    assert sorted(backend_outputs.MODELS) == list_families()


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("jax") is None,
    reason="jax is no dependency of vit_tf and not installed; `pip install jax` to compare with it",
)
def test_jax_gives_the_numbers_of_tensorflow(tmp_path):
    """Within 1e-5 of each tensor's largest value; TensorFlow is not imported beside JAX."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, SCRIPT, tmp_path / "jax.npz"]
    subprocess.run(command, env=environment, check=True, timeout=900)
    expected = backend_outputs.compute_outputs()
    with np.load(tmp_path / "jax.npz") as given:
        assert sorted(given) == sorted(expected)
        differences = {
            name: np.abs(given[name] - value).max() / max(1, np.abs(value).max())
            for name, value in expected.items()
        }
    largest = max(differences, key=differences.get)
    print(f"largest of {len(differences)} differences: {differences[largest]:.1e} in {largest}")
    assert differences[largest] <= 1e-5, largest
