"""Two worker processes extract the features of one, into a cache that both use."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import sys
import keras, numpy as np
from vit_tf.data import Input, TFDSSource
from vit_tf.evaluation import extract
from vit_tf.models import create_model
from vit_tf.training.strategies import create_strategy

shards, cache, out, strategy = sys.argv[1:]
strategy = create_strategy(strategy)
with strategy.scope():
    keras.utils.set_random_seed(0)
    model = create_model("vit", image_size=8, patch_size=4, width=16, depth=2, num_heads=2,
                         mlp_dim=24, num_classes=10)
ops = "decode|resize(8)|value_range(-1, 1)"
data = Input(TFDSSource(shards, "test"), ops, batch_size=48, training=False)
names = ["pre_logits", "block00/out:gap"]
for attempt in range(2):  # computed, then taken from the cache
    found = extract(model, data, names, cache_dir=cache, strategy=strategy)
np.savez(out, labels=found.labels, **{n.replace("/", "_"): v for n, v in found.features.items()})
"""


def extract_in(processes, shards, cache, folder, strategy):
    """Runs a worker in each process; returns what each of them found."""
    ports = [_free_port() for _ in range(processes)]
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    running = []
    for index in range(processes):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        config = {"TF_CONFIG": json.dumps(task)} if processes > 1 else {}
        out = folder / f"{processes}_{index}.npz"
        command = [sys.executable, "-c", WORKER, shards, str(cache), str(out), strategy]
        running.append(
            subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **config},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=240)[0] for process in running]
    for process, output in zip(running, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
    return [dict(np.load(folder / f"{processes}_{index}.npz")) for index in range(processes)]


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_two_workers_find_the_features_of_one_and_share_a_cache(digits_dir, tmp_path):
    (alone,) = extract_in(1, digits_dir, tmp_path / "alone", tmp_path, "cpu")
    both = extract_in(2, digits_dir, tmp_path / "shared", tmp_path, "multi_worker")
    assert len(alone["labels"]) == 360
    for found in both:
        np.testing.assert_array_equal(found.pop("labels"), alone["labels"])
        for name, values in found.items():
            np.testing.assert_allclose(values, alone[name], rtol=0, atol=1e-5)
    files = [path for path in (tmp_path / "shared").rglob("*") if path.is_file()]
    # One worker wrote, and left nothing half-written or locked behind.
    assert files and not [path for path in files if "worker" in path.name or "tmp" in path.name]
