"""What a SavedModel gives in a process of its own, where `vit_tf` is not there."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from vit_tf.export import fresh_process
from vit_tf.export.fresh_process import Call, read_calls, write_calls

_LAST_LINES = 3


def served_outputs(
    saved_model: str, calls: Sequence[Call], timeout: float = 3600.0
) -> list[dict[str, np.ndarray]]:
    """Calls a SavedModel's signatures in a fresh Python process that has TensorFlow alone.

    It runs on the CPU, with as many threads as this process.

    Args:
      saved_model: its folder, in which a folder lies while this runs.
      calls: the name of a signature and its arguments, each.
      timeout: seconds that the process may take.

    Returns:
      The outputs of each call by name.

    Raises:
      RuntimeError: if the process fails, with its last lines, is killed, or takes too long.
    """
    folder = os.path.join(saved_model, "check")
    tf.io.gfile.makedirs(folder)
    try:
        paths = [os.path.join(folder, name) for name in ("calls", "outputs")]
        write_calls(paths[0], calls)
        threading = tf.config.threading
        threads = (
            threading.get_intra_op_parallelism_threads(),
            threading.get_inter_op_parallelism_threads(),
        )
        _run([saved_model, *paths, *map(str, threads)], timeout)
        return [outputs for _, outputs in read_calls(paths[1])]
    finally:
        tf.io.gfile.rmtree(folder)


def _run(arguments: Sequence[str], timeout: float) -> None:
    # -P: the modules beside the program, of this package, are not found by `import`.
    command = [sys.executable, "-P", fresh_process.__file__, *arguments]
    environment = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    about = "the process that loads the SavedModel without vit_tf, to check it,"
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(
            f"{about} was not done after {timeout:g} s and was ended; the SavedModel was not "
            "published. Is the machine busy? Give it more time, or export on another one"
        ) from error
    if done.returncode == -signal.SIGKILL or _names_memory(done.stderr):
        raise RuntimeError(
            f"{about} ended as programs do where memory runs out; the SavedModel was not "
            "published. The model is in memory twice during an export: free some, or export on a "
            "larger machine"
        )
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        ended = f"status {done.returncode}"
        if done.returncode < 0:
            ended = signal.Signals(-done.returncode).name
        said = " | ".join(lines[-_LAST_LINES:]) or "it said nothing"
        raise RuntimeError(
            f"{about} failed ({ended}); the SavedModel was not published. Its last lines: {said}"
        )


def _names_memory(text: str) -> bool:
    return any(word in text for word in ("bad_alloc", "MemoryError", "ResourceExhaustedError"))
