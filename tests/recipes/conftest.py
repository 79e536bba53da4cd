"""Small data and small weights for the shipped gin files."""

import numpy as np
import pytest
import tensorflow as tf
from shrunken import CLASSES

from vit_tf.checkpoints import create_model, save_checkpoint
from vit_tf.data.image_files import ImageCollection, ImageRecord
from vit_tf.data.shards import write_dataset


@pytest.fixture(scope="session")
def colour_dir(tmp_path_factory):
    return _dataset(tmp_path_factory, "colour", 3)


@pytest.fixture(scope="session")
def grey_dir(tmp_path_factory):
    return _dataset(tmp_path_factory, "grey", 1)


def _dataset(tmp_path_factory, name, channels):
    rng = np.random.default_rng(0)

    def record(i):
        pixels = rng.integers(0, 255, [60, 60, channels], np.uint8)
        return ImageRecord(f"{i:02d}.jpg", i % CLASSES, tf.io.encode_jpeg(pixels).numpy())

    records = [record(i) for i in range(24)]
    names = tuple("abcd"[:CLASSES])
    splits = {"train": records[:16], "test": records[16:]}
    out = tmp_path_factory.mktemp(name)
    written = write_dataset(ImageCollection(names, splits), out, name, num_shards=1, progress=False)
    return str(written.directory)


@pytest.fixture
def weights(tmp_path):
    """`weights(name, **config)`: a file of a model that looks trained."""

    def write(name, num_classes=CLASSES, **config):
        model = create_model(name, num_classes=num_classes, **config)
        rng = np.random.default_rng(1)
        for weight in model.weights:
            weight.assign(weight + rng.normal(0, 0.05, weight.shape))
        path = str(tmp_path / f"{name}.npz" if "deit" not in name else tmp_path / f"{name}.keras")
        if path.endswith(".keras"):
            model.save(path)
        else:
            save_checkpoint(model, path)
        return path

    return write
