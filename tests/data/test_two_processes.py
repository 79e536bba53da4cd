"""Batches are a function of their arguments: the same bytes in every process, and after resume."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny_records

from vit_tf.data.input import Input
from vit_tf.data.tfrecord_source import TFRecordSource

PREPROCESS = "decode|inception_crop(12)|flip_lr|randaug(2, 10)|value_range(-1, 1)"
SHARDS = [9, 7, 11]
BATCH = 6
STEPS = 10  # more than two epochs
KINDS = {
    "window": {"shuffle_window": 10},
    "global": {"shuffle": "global"},
}


def make(pattern: str, kind: str, **arguments) -> Input:
    source = TFRecordSource(pattern, num_classes=5, features=tiny_records.FOREIGN_FEATURES)
    return Input(source, PREPROCESS, BATCH, training=True, seed=7, **KINDS[kind], **arguments)


def digest(batch: dict[str, np.ndarray]) -> str:
    return hashlib.sha256(b"".join(batch[key].tobytes() for key in sorted(batch))).hexdigest()


def in_another_process(pattern: str, *arguments: str | int) -> dict:
    """What this file prints when it is run as a program."""
    done = subprocess.run(
        [sys.executable, __file__, pattern, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def pattern(tmp_path_factory) -> str:
    return tiny_records.write_foreign(tmp_path_factory.mktemp("records"), SHARDS)


@pytest.mark.slow
def test_two_processes_and_a_resumed_one_make_the_same_bytes(pattern):
    first = in_another_process(pattern, 0)
    assert in_another_process(pattern, 0) == first
    resumed = in_another_process(pattern, 5)
    for kind in KINDS:
        assert len(set(first[kind]["digests"])) == STEPS
        assert resumed[kind]["digests"][: STEPS - 5] == first[kind]["digests"][5:]


@pytest.mark.slow
def test_workers_in_processes_of_their_own_share_every_global_batch(pattern):
    of_workers = [in_another_process(pattern, 0, worker, 2) for worker in range(2)]
    for kind in ("window", "global"):
        whole = [batch["index"] for batch in make(pattern, kind)().take(STEPS).as_numpy_iterator()]
        shares = [np.array(of_worker[kind]["index"]) for of_worker in of_workers]
        np.testing.assert_array_equal(np.concatenate(shares, axis=1), whole)
    seen = np.concatenate([of_worker["evaluation"] for of_worker in of_workers])
    assert sorted(seen[seen >= 0]) == list(range(sum(SHARDS)))  # each once, the rest is padding
    assert len(of_workers[0]["evaluation"]) == len(of_workers[1]["evaluation"])


def main(pattern: str, start_step: int = 0, worker: int = 0, workers: int = 1) -> None:
    """Prints what one worker sees from a step on."""
    context = tf.distribute.InputContext(workers, worker, workers)
    seen = {}
    for kind in KINDS:
        batches = list(make(pattern, kind)(context, start_step).take(STEPS).as_numpy_iterator())
        seen[kind] = {
            "digests": [digest(batch) for batch in batches],
            "index": [batch["index"].tolist() for batch in batches],
        }
    source = make(pattern, "window").source
    evaluation = Input(source, "decode|resize(8)", 8, training=False)(context)
    batches = evaluation.as_numpy_iterator()
    seen["evaluation"] = [int(index) for batch in batches for index in batch["index"]]
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
