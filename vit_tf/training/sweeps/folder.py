"""What lies in a sweep's folder: its runs, how far each is, and what it measured.

Its files:

    sweep_dir/
      sweep.gin           what all runs share
      <run>/              the run's model_dir, with
        sweep_run.json    its bindings, and how it ended
        sweep_log.txt     what it printed
      summary.csv, summary.json, summary.png
"""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from vit_tf.training import configuration_change
from vit_tf.training.model_dir import ModelDir
from vit_tf.training.run_log import RunLog
from vit_tf.training.sweeps.grid import SweepRun

_SHARED = "sweep.gin"
_RECORD = "sweep_run.json"
LOG = "sweep_log.txt"
# How a run is, as its record says it.
STARTED, SUBMITTED, DONE = "started", "submitted", "done"
INTERRUPTED, FAILED = "interrupted", "failed"


class SweepFolder:
    """The folder of one sweep.

    Args:
      path: the folder; made if it is not there.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        self._files = ModelDir(self.path)

    def model_dir(self, run: SweepRun) -> str:
        """The run's folder."""
        return os.path.join(self.path, run.name)

    def claim(self, shared: str, varied: Collection[str]) -> None:
        """Makes the folder that of a configuration.

        Args:
          shared: gin text of what all runs share.
          varied: bindings in which the runs differ; those in which runs before did, do too.

        Raises:
          ValueError: if the sweep began with another configuration.
        """
        tf.io.gfile.makedirs(self.path)
        varied = {*varied, *(name for run in self.runs() for name in run.values)}
        shared = configuration_change.without(shared, varied)
        before = configuration_change.without(self._files.read_text(_SHARED) or "", varied)
        changed = configuration_change.changes(before, shared)
        if any(not change.free for change in changed):
            lines = "\n".join(f"  {line}" for c in changed for line in str(c).splitlines())
            raise ValueError(
                f"the sweep in {self.path} began with another configuration:\n{lines}\nGo back to "
                "that one, or give this one a --sweep_dir of its own"
            )
        self._files.write_text(_SHARED, shared)

    def runs(self) -> list[SweepRun]:
        """The runs that were started or submitted so far, by name."""
        found = tf.io.gfile.glob(os.path.join(_escaped(self.path), "*", _RECORD))
        names = sorted(os.path.basename(os.path.dirname(path)) for path in found)
        return [SweepRun(name, self._record_of(name)["values"]) for name in names]

    def state(self, run: SweepRun) -> str | None:
        """How a run is; None if it was never started.

        A run that was submitted is done once its files say so.

        Raises:
          ValueError: if a run of this name has other bindings.
        """
        record = self._record_of(run.name)
        if record is None:
            return None
        if record["values"] != dict(run.values):
            raise ValueError(
                f"{self.model_dir(run)} holds a run with the bindings {record['values']}, not "
                f"{dict(run.values)}; give this one a --sweep_dir of its own"
            )
        if record["state"] == SUBMITTED and self._is_complete(run):
            return DONE
        return record["state"]

    def keep(self, run: SweepRun, state: str, **facts: Any) -> None:
        """Records how a run is, with whatever else there is to say."""
        folder = ModelDir(self.model_dir(run))
        tf.io.gfile.makedirs(folder.path)
        record = {"values": dict(run.values), "state": state, **facts}
        folder.write_text(_RECORD, json.dumps(record, indent=1))

    def about(self, run: SweepRun) -> dict[str, Any]:
        """The facts that were recorded with a run's state."""
        record = self._record_of(run.name) or {}
        return {name: value for name, value in record.items() if name not in ("values", "state")}

    def rows(self, run: SweepRun) -> list[dict[str, Any]]:
        """Rows of a run's `metrics.jsonl`."""
        return RunLog(ModelDir(self.model_dir(run))).rows()

    def last_errors(self, run: SweepRun, lines: int = 5) -> str:
        """The last lines that a run printed, from its last error on if there is one."""
        text = ModelDir(self.model_dir(run)).read_text(LOG) or ""
        tail = [line for line in text.splitlines() if line.strip()][-40:]
        errors = [place for place, line in enumerate(tail) if re.match(r"error: |\w*Error", line)]
        return "\n".join(tail[errors[-1] :][:lines] if errors else tail[-lines:])

    def write(self, name: str, text: str) -> str:
        """Writes a file of the sweep; returns its path."""
        self._files.write_text(name, text)
        return self._files.join(name)

    @contextlib.contextmanager
    def locked(self) -> Iterator[int | None]:
        """Keeps a second sweep out of the folder.

        Yields:
          A descriptor that holds the lock. Processes that inherit it hold it too, so that a sweep
          that was killed is not started again beside its own runs. None where folders have no
          locks (`gs://...`).

        Raises:
          FileExistsError: if another sweep, or what is left of one, is at work here.
        """
        if "://" in self.path:
            yield None
            return
        os.makedirs(self.path, exist_ok=True)
        descriptor = os.open(self._files.join("sweep.lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.pread(descriptor, 20, 0).decode()
                raise FileExistsError(
                    f"another sweep is at work in {self.path} (process {pid.strip()}, or runs that "
                    "it started and that outlived it); wait for it, or end it first"
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            yield descriptor
        finally:
            os.close(descriptor)

    def _record_of(self, name: str) -> dict[str, Any] | None:
        text = self._files.read_text(os.path.join(name, _RECORD))
        return json.loads(text) if text else None

    def _is_complete(self, run: SweepRun) -> bool:
        """Whether a run has evaluated its last step."""
        total = ModelDir(self.model_dir(run)).total_steps
        return total is not None and any(
            row["step"] >= total for row in self.rows(run) if row["kind"] != "train"
        )


def measured(
    rows: Sequence[Mapping[str, Any]], metric: str, select: str, lower: bool = False
) -> tuple[float, int] | None:
    """The value that a run is judged by.

    Args:
      rows: of its `metrics.jsonl`; those of training do not count.
      metric: name of the value.
      select: `"last"` or `"best"` evaluation.
      lower: whether lower values are better.

    Returns:
      The value and the step it was measured at; None if there is none.
    """
    found = [(row[metric], row["step"]) for row in rows if row["kind"] != "train" and metric in row]
    if not found:
        return None
    if select == "last":
        return max(found, key=lambda pair: pair[1])
    return min(found, key=lambda pair: (pair[0] if lower else -pair[0], pair[1]))


def _escaped(path: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", path)
