"""Training whose batches are made by a tf.data service."""

import json
import signal
import socket
import subprocess
import sys

import pytest
from processes import ROOT, rows, start

pytestmark = pytest.mark.slow

SETTINGS = [
    "RunConfig.steps = 8",
    "RunConfig.steps_per_loop = 2",
    "RunConfig.checkpoint_interval = 4",
    "RunConfig.strategy = 'multi_worker'",
]


@pytest.fixture(scope="module")
def service():
    """Address of a dispatcher with two workers, all processes of their own."""
    processes = []

    def add(*flags: str) -> str:
        command = [sys.executable, "tools/data_service.py", "--host=localhost", *flags]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process.stdout.readline()

    address = add("--mode=dispatcher").split('"')[1]
    for _ in range(2):
        add("--mode=worker", f"--dispatcher={address.removeprefix('grpc://')}")
    yield address
    for process in processes:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_two_training_workers_learn_the_same_from_a_service(service, digits_dir, tmp_path):
    _train(tmp_path / "here", digits_dir, SETTINGS)
    # Twice: the second start must not meet what the first one left at the service.
    for name in ("there", "again"):
        served = [*SETTINGS, f"train/Input.service = '{service}'"]
        _train(tmp_path / name, digits_dir, served)
        assert rows(tmp_path / name) == rows(tmp_path / "here")


def _train(model_dir, digits_dir, settings) -> None:
    cluster = {"worker": [f"127.0.0.1:{_free_port()}" for _ in range(2)]}
    processes = []
    for index in range(2):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        env = {"TF_CONFIG": json.dumps(task)}
        processes.append(start(model_dir, digits_dir, *settings, mode="train", env=env))
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
