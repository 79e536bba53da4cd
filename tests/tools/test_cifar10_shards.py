"""Class folders of real JPEGs through the tool and back through `Input`: nothing lost."""

import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from vit_tf.data import Input, TFDSSource

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_cifar10_folders_become_shards_that_hold_every_image_once(shared, tmp_path):
    with tarfile.open(shared / "data" / "cifar10" / "cifar10_jpg_test.tar.gz") as archive:
        archive.extractall(tmp_path / "images", filter="data")
    command = [sys.executable, "tools/make_tfrecords.py", f"--source={tmp_path / 'images'}"]
    command += [f"--out_dir={tmp_path}", "--name=cifar10", "--num_shards=3"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)

    source = TFDSSource(str(tmp_path / "cifar10"), "test")
    assert source.num_examples == 10_000
    assert source.class_names == sorted(source.class_names) and len(source.class_names) == 10
    data = Input(source, "decode|resize(32)|value_range(-1, 1)", batch_size=512, training=False)
    batches = list(data().as_numpy_iterator())
    real = np.concatenate([batch["mask"] for batch in batches]) > 0
    index = np.concatenate([batch["index"] for batch in batches])[real]
    labels = np.concatenate([batch["label"] for batch in batches])[real]
    np.testing.assert_array_equal(np.sort(index), np.arange(10_000))
    np.testing.assert_array_equal(np.bincount(labels), np.full(10, 1000))
    paths = [record["filename"].numpy().decode() for record in data.encoded().take(500)]
    names = [source.class_names[label] for label in labels[:500]]
    assert [Path(path).parent.name for path in paths] == names
