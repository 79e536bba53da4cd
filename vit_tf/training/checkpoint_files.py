"""The files of a run's checkpoints: which there are, which are whole, which may go.

A checkpoint `ckpt-<step>` is there once its `.index` is. It is written in a folder beside and
renamed, the `.index` last, so a process killed at any moment leaves what was there and a folder
that the next start removes. TensorFlow keeps a checksum of every tensor and of the index.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator

import tensorflow as tf

from vit_tf.training.state import RESTORE_ERRORS, first_line

_FILE = re.compile(r"ckpt-(\d+)\.(index|data-\d+-of-\d+)")


class CheckpointFiles:
    """The folder of checkpoints; made when the first one is written.

    Args:
      folder: its path.
    """

    def __init__(self, folder: str):
        self.folder = folder
        self._whole: set[str] = set()  # read in full once: not again for each use

    def path(self, step: int) -> str:
        """What TensorFlow calls the checkpoint of a step: its files' names without their ends."""
        return os.path.join(self.folder, f"ckpt-{step}")

    def steps(self) -> list[int]:
        """Steps of the checkpoints that were written to their end, oldest first."""
        return sorted(step for step, kind in self._files() if kind == "index")

    def latest(self) -> str | None:
        """Path of the newest checkpoint, or None."""
        steps = self.steps()
        return self.path(steps[-1]) if steps else None

    def newest_whole(self) -> tuple[str | None, list[str]]:
        """The newest checkpoint that can be read back, every tensor of it.

        Returns:
          Its path, or None; and what is wrong with each one that is newer.
        """
        problems = []
        for step in reversed(self.steps()):
            path = self.path(step)
            problem = None if path in self._whole else damage(path)
            if problem is None:
                self._whole.add(path)
                return path, problems
            if step in self.steps():  # else it was replaced by a newer one meanwhile
                problems.append(problem)
        return None, problems

    def as_they_come(self, timeout: float) -> Iterator[str]:
        """Paths of the newest checkpoint, and of each newer one that another process writes.

        Args:
          timeout: seconds without a new one after which to end, by a clock that nobody sets.
        """
        last, deadline = None, time.monotonic() + timeout
        while True:
            path = self.latest()
            if path not in (None, last):
                yield path
                last, deadline = path, time.monotonic() + timeout
            elif time.monotonic() > deadline:
                return
            else:
                time.sleep(min(1.0, timeout))

    def recover(self) -> tuple[int | None, list[str]]:
        """Makes the newest whole checkpoint the newest one; for the process that writes.

        What a killed process left half-written is removed. Damaged checkpoints are moved to
        `damaged/`, unless there is none to go on from.

        Returns:
          The step, or None; and what is wrong with each one that is newer.
        """
        self._remove_half_written()
        problems, damaged = [], []
        for step in sorted({step for step, _ in self._files()}, reverse=True):
            problem = damage(self.path(step))
            if problem is None:
                for other in damaged:
                    self._set_aside(other)
                for other in {other for other, _ in self._files()} - set(self.steps()):
                    self._remove(other)  # killed while it was being removed
                self._point_to_newest()
                return step, problems
            problems.append(problem)
            damaged.append(step)
        return None, problems

    def publish(self, step: int, write: Callable[[str], object]) -> None:
        """Has a checkpoint written and puts it in place, all of it or nothing.

        Args:
          step: its step.
          write: writes a TensorFlow checkpoint under the path that it is given.

        Raises:
          OSError, tf.errors.OpError: what came in the way; nothing half-written is left then.
        """
        aside = f"{self.path(step)}.temp"
        try:
            tf.io.gfile.makedirs(aside)
            write(os.path.join(aside, f"ckpt-{step}"))
            self._remove(step)
            for name in sorted(tf.io.gfile.listdir(aside)):  # .data before .index
                tf.io.gfile.rename(os.path.join(aside, name), os.path.join(self.folder, name))
            tf.io.gfile.rmtree(aside)
        except (tf.errors.OpError, OSError):
            with contextlib.suppress(tf.errors.OpError, OSError):
                self._remove_half_written()
            raise
        self._point_to_newest()

    def sweep(self, keep: int, for_good: Callable[[int], bool]) -> None:
        """Removes old checkpoints.

        Args:
          keep: how many of the newest stay.
          for_good: whether the checkpoint of a step stays for ever.
        """
        for step in self.steps()[:-keep]:
            if not for_good(step):
                self._remove(step)
        self._point_to_newest()

    def _files(self) -> list[tuple[int, str]]:
        """Step and kind (`index` or `data-...`) of all files in place."""
        if not tf.io.gfile.isdir(self.folder):
            return []
        matches = map(_FILE.fullmatch, tf.io.gfile.listdir(self.folder))
        return [(int(match[1]), match[2]) for match in matches if match]

    def _remove_half_written(self) -> None:
        """Removes folders of writes that were killed, with what they had put in place already."""
        for aside in tf.io.gfile.glob(os.path.join(self.folder, "ckpt-*.temp")):
            step = int(re.search(r"ckpt-(\d+)\.temp", aside)[1])
            if step not in self.steps():
                self._remove(step)
            tf.io.gfile.rmtree(aside)

    def _remove(self, step: int) -> None:
        for kind in self._kinds(step):  # .index first: from then on it is not there
            tf.io.gfile.remove(f"{self.path(step)}.{kind}")

    def _set_aside(self, step: int) -> None:
        folder = os.path.join(self.folder, "damaged")
        tf.io.gfile.makedirs(folder)
        for kind in reversed(self._kinds(step)):
            name = f"ckpt-{step}.{kind}"
            tf.io.gfile.rename(
                os.path.join(self.folder, name), os.path.join(folder, name), overwrite=True
            )

    def _kinds(self, step: int) -> list[str]:
        """Kinds of a checkpoint's files, `index` first."""
        kinds = (kind for other, kind in self._files() if other == step)
        return sorted(kinds, key=lambda kind: (kind != "index", kind))

    def _point_to_newest(self) -> None:
        """Writes the file `checkpoint`, in which TensorFlow's functions look for the newest."""
        names = [os.path.basename(self.path(step)) for step in self.steps()]
        lines = [f"all_model_checkpoint_paths: {json.dumps(name)}\n" for name in names]
        lines[:0] = [f"model_checkpoint_path: {json.dumps(names[-1])}\n"] if names else []
        path = os.path.join(self.folder, "checkpoint")
        with tf.io.gfile.GFile(f"{path}.tmp", "w") as file:
            file.write("".join(lines))
        tf.io.gfile.rename(f"{path}.tmp", path, overwrite=True)


def damage(path: str) -> str | None:
    """What is wrong with a checkpoint, found by reading it all, each tensor with its checksum.

    Args:
      path: as TensorFlow has it, without `.index`.

    Returns:
      The file and what is wrong with it, or None.
    """
    name = os.path.basename(path)
    if not tf.io.gfile.exists(f"{path}.index"):
        return f"{name}.index is missing"
    try:
        reader = tf.train.load_checkpoint(path)
        tensors = sorted(reader.get_variable_to_shape_map())
    except RESTORE_ERRORS as error:
        return f"{name}.index: {first_line(error)}"
    files = [os.path.basename(file) for file in tf.io.gfile.glob(f"{path}.data-*")]
    if not files or len(files) != int(files[0].rpartition("-")[2]):
        return f"{name}.data: {len(files)} files are there and some are missing"
    for tensor in tensors:
        try:
            reader.get_tensor(tensor)
        except RESTORE_ERRORS as error:
            return f"{', '.join(sorted(files))}: {first_line(error)} (reading {tensor})"
    return None
