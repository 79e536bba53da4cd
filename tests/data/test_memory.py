"""A training input's memory stays what its shuffle windows need, epoch after epoch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vit_tf.data import memory

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
sys.argv = ["input_memory.py", "--records=16000", "--window=16000", "--epochs=8"]
sys.path.append("benchmarks")
import input_memory
from vit_tf.data import memory
memory.PERIOD_SECONDS = 0.1  # what is freed between two trims is no growth
input_memory.app.run(input_memory.main)
"""


def test_one_thread_a_process_does_it():
    thread = memory.keep_trimmed()
    if sys.platform == "linux":
        assert thread.daemon and thread.is_alive()
    assert memory.keep_trimmed() is thread


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert memory.keep_trimmed.__wrapped__() is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and trims glibc's heaps")
def test_memory_does_not_grow_with_the_epochs():
    command = [sys.executable, "-c", SCRIPT]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    megabytes = [int(n.replace(",", "")) for n in re.findall(r": ([\d,]+) MB at most", run.stdout)]
    assert len(megabytes) == 8
    assert max(megabytes) < 3.6 * 160  # three windows of 160 MB, and what passes through
