"""What a run writes about itself: `metrics.jsonl`, TensorBoard, and lines for the person."""

import json
import math
import sys
import time
from typing import Any

import tensorflow as tf

from vit_tf.training.model_dir import ModelDir


class RunLog:
    """Writes metrics of one run; in processes that are not the chief it writes nothing.

    Args:
      model_dir: where to.
      file: name of the metrics file; a process that evaluates beside a running trainer takes
        another one, so that each file has one writer.
    """

    def __init__(self, model_dir: ModelDir, file: str = "metrics.jsonl"):
        self._model_dir = model_dir
        self._path = model_dir.join(file)
        self._file = file
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        self._checked = False

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return self._model_dir.chief

    def rewind(self, step: int) -> None:
        """Forgets what was logged after `step`, and a line that was not finished.

        A run that was killed goes on from a checkpoint; the lines between that and its end are
        written again, with the same values. Other lines that cannot be read, as a crash of the
        machine leaves them, are moved to a file beside.
        """
        text = self._model_dir.read_text(self._file)
        if text is None or not self._model_dir.chief:
            return
        lines = text.split("\n")
        kept = "".join(line + "\n" for line in lines if _step_of(line) <= step)
        unreadable = [line for line in lines[:-1] if _step_of(line) == math.inf]
        if unreadable:
            beside = f"{self._file}.damaged"
            before = self._model_dir.read_text(beside) or ""
            self._model_dir.write_text(beside, before + "\n".join([*unreadable, ""]))
            print(f"{self._path}: {len(unreadable)} lines cannot be read; moved to {beside}")
        if kept != text:
            self._model_dir.write_text(self._file, kept)

    def rows(self) -> list[dict[str, Any]]:
        """All complete rows of the file, oldest first."""
        text = self._model_dir.read_text(self._file) or ""
        return [json.loads(line) for line in text.split("\n") if _step_of(line) < math.inf]

    def say_what_is_missing(self, step: int) -> None:
        """Says so if rows up to a step, which were all written, are no longer there."""
        last = max((row["step"] for row in self.rows()), default=0)
        if last < step and self._model_dir.chief:
            print(
                f"{self._path} ends at step {last}: its rows from there to step {step} were lost, "
                "outside of this program",
                flush=True,
            )

    def write(
        self,
        kind: str,
        step: int,
        values: dict[str, Any],
        only_curves: dict[str, Any] | None = None,
        about: dict[str, str] | None = None,
        curves: str = "",
    ) -> None:
        """Appends one row and writes its numbers to TensorBoard.

        Args:
          kind: `"train"`, `"eval"` or `"probe"`; a curve of its own in TensorBoard.
          step: optimizer steps done.
          values: name -> number.
          only_curves: further ones, for TensorBoard alone.
          about: texts for the row alone.
          curves: what the names of the curves begin with, such as `"few_shot/flowers/"`.

        Raises:
          OSError: if the file cannot be written, naming it.
        """
        if not self._model_dir.chief:
            return
        row = {"step": step, "kind": kind, **(about or {}), **values, "time": round(time.time(), 3)}
        self._append(json.dumps(row) + "\n")
        with self._writer(kind).as_default():
            for name, value in {**values, **(only_curves or {})}.items():
                tf.summary.scalar(f"{curves}{name}", value, step=step)
        self._writer(kind).flush()

    def write_text(self, name: str, text: str, step: int = 0) -> None:
        """Shows a text in TensorBoard, unchanged by Markdown."""
        if self._model_dir.chief:
            with self._writer("train").as_default():
                tf.summary.text(name, "    " + text.replace("\n", "\n    "), step=step)

    def write_image(self, kind: str, name: str, image: tf.Tensor, step: int) -> None:
        """Shows images [batch, height, width, channels], uint8 or float in [0, 1]."""
        if self._model_dir.chief:
            with self._writer(kind).as_default():
                tf.summary.image(name, image, step=step, max_outputs=16)
            self._writer(kind).flush()

    def write_histograms(self, tensors: dict[str, tf.Tensor], step: int) -> None:
        """Shows the distributions of tensors by name."""
        if self._model_dir.chief:
            with self._writer("train").as_default():
                for name, tensor in tensors.items():
                    tf.summary.histogram(name, tensor, step=step)
            self._writer("train").flush()

    def _append(self, line: str) -> None:
        try:
            if not self._checked:
                self._drop_half_line()
                self._checked = True
            with tf.io.gfile.GFile(self._path, "a") as file:
                file.write(line)
        except (tf.errors.OpError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise OSError(
                f"cannot write to {self._path}: {reason}. Make room or make it writable, and start "
                "the same command again"
            ) from error

    def _drop_half_line(self) -> None:
        """Takes away what a killed process left, which would swallow the next line."""
        tf.io.gfile.makedirs(self._model_dir.path)
        text = self._model_dir.read_text(self._file)
        if text and not text.endswith("\n"):
            self.rewind(sys.maxsize)

    def _writer(self, kind: str) -> tf.summary.SummaryWriter:
        if kind not in self._writers:
            self._writers[kind] = tf.summary.create_file_writer(
                self._model_dir.join("tensorboard", kind)
            )
        return self._writers[kind]


def _step_of(line: str) -> float:
    """Step of a row; infinite for what is none, such as a line cut off in the writing."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf
    return step if isinstance(step, int) else math.inf
