"""The parts of a tf.data service as processes of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start(*flags: str) -> subprocess.Popen:
    """Starts tools/data_service.py as a person would."""
    return subprocess.Popen(
        [sys.executable, "tools/data_service.py", *flags],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Service:
    """A dispatcher and some workers on free ports of this machine."""

    def __init__(self, num_workers: int):
        self.workers: list[subprocess.Popen] = []
        self.dispatcher = start("--mode=dispatcher", "--host=localhost")
        self.address = self.dispatcher.stdout.readline().split('"')[1]  # as written for gin
        self.add_workers(num_workers)

    def add_workers(self, count: int) -> None:
        flags = ["--host=localhost", f"--dispatcher={self.address.removeprefix('grpc://')}"]
        added = [start("--mode=worker", *flags) for _ in range(count)]
        for worker in added:
            assert "worker localhost:" in worker.stdout.readline()
        self.workers += added

    def stop(self) -> None:
        for process in [*self.workers, self.dispatcher]:
            process.send_signal(signal.SIGKILL)
            process.communicate()
