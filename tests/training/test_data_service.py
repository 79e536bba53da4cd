"""Training whose batches are made by a tf.data service."""

import signal
import subprocess
import sys

import pytest
from forked import run_workers
from processes import ROOT, rows

pytestmark = pytest.mark.slow

SETTINGS = [
    "RunConfig.steps = 8",
    "RunConfig.steps_per_loop = 2",
    "RunConfig.checkpoint_interval = 4",
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
    run_workers(2, tmp_path / "here", digits_dir, *SETTINGS)
    # Twice: the second start must not meet what the first one left at the service.
    for name in ("there", "again"):
        served = [*SETTINGS, f"train/Input.service = '{service}'"]
        run_workers(2, tmp_path / name, digits_dir, *served)
        assert rows(tmp_path / name) == rows(tmp_path / "here")
