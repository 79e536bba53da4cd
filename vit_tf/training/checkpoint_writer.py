"""Writes checkpoints in the background: training goes on as soon as the state is copied."""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import tensorflow as tf

from vit_tf.training.checkpoint_files import CheckpointFiles
from vit_tf.training.state import first_line


class CheckpointWriter:
    """Copies the state to host memory and leaves the writing to a thread, one at a time.

    As a context manager it waits at the end for what is still being written.

    Args:
      files: where to.
      state: nested dicts of variables.
      keep: how many of the newest checkpoints stay.
      for_good: whether the checkpoint of a step stays for ever.
      chief: whether this process writes. Others only take part in reading those variables that
        are the sum of what each replica has.
      in_background: whether `save` returns before the files are written.
    """

    def __init__(
        self,
        files: CheckpointFiles,
        state: dict[str, Any],
        keep: int,
        for_good: Callable[[int], bool] = lambda step: False,
        chief: bool = True,
        in_background: bool = True,
    ):
        self._files = files
        self._state = state
        self._keep = keep
        self._for_good = for_good
        self._chief = chief
        self._in_background = in_background
        self._copies: dict[str, Any] | None = None
        self._checkpoint: tf.train.Checkpoint | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future | None = None

    def save(self, step: int) -> None:
        """Saves the state as it is now.

        Raises:
          OSError: if the checkpoint before could not be written (see `check`), or this one if it
            is not left to the background.
        """
        self.wait()
        if not self._chief:
            for variable in tf.nest.flatten(self._state):
                if variable.synchronization == tf.VariableSynchronization.ON_READ:
                    variable.numpy()
            return
        self._copy_state()
        self._pending = self._thread.submit(self._write, step)
        if not self._in_background:
            self.wait()

    def check(self) -> None:
        """Raises what the writing of a checkpoint ended with, if it has ended; does not wait.

        Raises:
          OSError: naming the folder, the space that is free and the checkpoint that is left.
        """
        if self._pending and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Waits for the checkpoint that is being written.

        Raises:
          OSError: as `check`.
        """
        pending, self._pending = self._pending, None
        if pending:
            pending.result()

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.wait()
        except OSError as own:
            if error is None:
                raise
            print(own, flush=True)  # what ended the training is the error to report
        finally:
            self._thread.shutdown()

    def _copy_state(self) -> None:
        # NumPy's copies: a variable's tensor may share the memory that training writes to.
        if self._copies is None:
            with tf.device("/cpu:0"):
                self._copies = tf.nest.map_structure(
                    lambda variable: tf.Variable(variable.numpy(), trainable=False), self._state
                )
                self._checkpoint = tf.train.Checkpoint(**self._copies)
                self._checkpoint.save_counter.assign(0)  # made on first use; restoring wants it
            return
        for copy, variable in zip(
            tf.nest.flatten(self._copies), tf.nest.flatten(self._state), strict=True
        ):
            copy.assign(variable.numpy())

    def _write(self, step: int) -> None:
        before = self._files.latest()
        try:
            self._files.publish(step, self._checkpoint.write)
            self._files.sweep(self._keep, self._for_good)
        except (tf.errors.OpError, OSError) as error:
            left = f"{os.path.basename(before)} is intact" if before else "none was there before"
            raise OSError(
                f"could not write checkpoint ckpt-{step} to {self._files.folder}: "
                f"{first_line(error)}; {_free_space(self._files.folder)}. Of the checkpoints "
                f"before, {left}. Make room and start the same command again"
            ) from error


def _free_space(folder: str) -> str:
    if not os.path.isdir(folder):
        return "free space unknown"
    return f"{shutil.disk_usage(folder).free / 1e6:.0f} MB are free"
