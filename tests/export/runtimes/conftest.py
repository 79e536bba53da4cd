"""A tiny exported model that the tests of other runtimes share, and what it was converted to."""

from pathlib import Path

import numpy as np
import pytest
from tiny_exports import write_export

from vit_tf.data import TFDSSource
from vit_tf.export.runtimes import variants
from vit_tf.export.runtimes.served_model import ServedModel


@pytest.fixture(scope="session")
def served(tmp_path_factory) -> ServedModel:
    """A tiny ViT for the digits."""
    return ServedModel(write_export(tmp_path_factory.mktemp("served") / "1", "vit"))


@pytest.fixture(scope="session")
def digits_test(digits_dir) -> TFDSSource:
    """The digits' test split."""
    return TFDSSource(digits_dir, "test")


@pytest.fixture(scope="session")
def digit_batch(served, digits_test) -> np.ndarray:
    """The digits' first 100 test images as the model takes them."""
    return np.stack(variants.representative_images(served, digits_test, 100))


@pytest.fixture(scope="session")
def converted(served, digit_batch, tmp_path_factory) -> dict[str, str]:
    """The folder of each kind."""
    for extra in ("ai_edge_litert", "tf2onnx", "onnxruntime", "openvino"):
        pytest.importorskip(extra)
    out = tmp_path_factory.mktemp("converted")
    folders = variants.convert_kinds(served, str(out), representative=digit_batch)
    return {Path(folder).name: folder for folder in folders}
