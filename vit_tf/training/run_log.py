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

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Appends one row and writes its numbers to TensorBoard.

        Args:
          kind: `"train"` or `"eval"`; a curve of its own in TensorBoard.
          step: optimizer steps done.
          values: name -> number.

        Raises:
          OSError: if the file cannot be written, naming it.
        """
        if not self._model_dir.chief:
            return
        row = {"step": step, "kind": kind, **values, "time": round(time.time(), 3)}
        self._append(json.dumps(row) + "\n")
        with self._writer(kind).as_default():
            for name, value in values.items():
                tf.summary.scalar(name, value, step=step)
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


class Progress:
    """The progress line: step, loss, rate, images a second, wait for input, time left.

    Args:
      total_steps: length of the run.
      global_batch: examples a step.
      quiet: measures without printing, for processes that are not the chief.
    """

    def __init__(self, total_steps: int, global_batch: int, quiet: bool = False):
        self._total = total_steps
        self._batch = global_batch
        self._quiet = quiet
        self._updates = 0
        self._last = (None, time.monotonic())
        self._speed: float | None = None

    def start(self, step: int) -> None:
        """Starts the clock at a step."""
        self._last = (step, time.monotonic())

    def update(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Prints the line of a finished loop.

        Args:
          step: optimizer steps done.
          values: what the training loop returned.

        Returns:
          `"images_per_second"` and `"input_wait"`, the share of time spent waiting for input.
        """
        before, then = self._last
        now = time.monotonic()
        self._last = (step, now)
        seconds = max(now - then, 1e-9)
        speed = (step - before) * self._batch / seconds
        smooth = speed if self._speed is None else 0.7 * self._speed + 0.3 * speed
        # A process's first loop holds tracing and compiling and would spoil the estimate.
        self._speed = smooth if self._updates else None
        self._updates += 1
        # A TPU's host measures the wait by its wall clock, which somebody may set.
        wait = min(1.0, max(0.0, values["input_wait_seconds"] / seconds))
        if not self._quiet:
            self._print(step, values, speed, wait, (self._total - step) * self._batch / smooth)
        return {"images_per_second": round(speed, 1), "input_wait": round(wait, 4)}

    def _print(
        self, step: int, values: dict[str, float], speed: float, wait: float, left: float
    ) -> None:
        skipped = values["skipped_examples"]
        print(
            f"step {step:>{len(str(self._total))}}/{self._total} {100 * step / self._total:3.0f}%"
            f"  loss {values['loss']:.4f}"
            + (f"  accuracy {values['accuracy']:.3f}" if "accuracy" in values else "")
            + f"  lr {values['learning_rate']:.2e}  {speed:,.0f} images/s"
            f"  input wait {100 * wait:.0f}%  left {duration(left)}"
            + (f"  skipped {skipped} records" if skipped else ""),
            flush=True,
        )


def duration(seconds: float) -> str:
    """`75` -> `1:15`, `3700` -> `1:01:40`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
