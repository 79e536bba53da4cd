"""Runs of a sweep as processes of this machine, so many at a time."""

import collections
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

from vit_tf.training.preemption import INTERRUPTED as BY_PERSON
from vit_tf.training.preemption import START_AGAIN
from vit_tf.training.progress import duration
from vit_tf.training.sweeps.folder import DONE, FAILED, INTERRUPTED, LOG, STARTED, SweepFolder
from vit_tf.training.sweeps.grid import SweepRun

_TICK = 0.2  # seconds between looks at the processes
_WIDTH = 100  # of what is shown of a run's own lines


class LocalRuns:
    """Starts runs one after the other, keeps count of them and stops them politely.

    A run that was interrupted (by SIGTERM, Ctrl-C, or killed by the system) goes on from its last
    checkpoint when the sweep is started again; one that failed stays as it is.

    Args:
      folder: of the sweep.
      command: makes the command of a run.
      jobs: how many run at a time.
      gpus: the GPUs of each job, as `CUDA_VISIBLE_DEVICES` takes them; by default all jobs see all.
      judge: a run's result as text.
      every: seconds between lines on how far the runs are.
    """

    def __init__(
        self,
        folder: SweepFolder,
        command: Callable[[SweepRun], Sequence[str]],
        jobs: int = 1,
        gpus: Sequence[str] = (),
        judge: Callable[[SweepRun], str] = lambda run: "",
        every: float = 30.0,
    ):
        self._folder = folder
        self._command = command
        self._slots = collections.deque(gpus or [None] * jobs)
        self._judge = judge
        self._every = every
        self._stopped_by: int | None = None

    def start_all(self, runs: Sequence[SweepRun], lock: int | None = None) -> int:
        """Runs them to their ends, or until this process is asked to stop.

        Args:
          runs: in the order in which they are started.
          lock: a descriptor that the processes inherit, see `SweepFolder.locked`.

        Returns:
          The exit status: 0 if all are done, 1 if some failed, 75 or 130 if the same command
          goes on with what was interrupted (130 after Ctrl-C).
        """
        waiting = collections.deque(runs)
        active: dict[SweepRun, _Child] = {}
        ended: collections.Counter[str] = collections.Counter()
        self._told = time.monotonic()
        with self._catch_signals(active):
            while active or (waiting and self._stopped_by is None):
                while waiting and self._slots and self._stopped_by is None:
                    run = waiting.popleft()
                    active[run] = self._start(run, self._slots.popleft(), lock)
                time.sleep(_TICK)
                over = [run for run, c in active.items() if c.process.poll() is not None]
                for run in over:
                    child = active.pop(run)
                    self._slots.append(child.gpus)
                    ended[self._note_end(run, child)] += 1
                self._tell(active, len(waiting), ended)
        if self._stopped_by is not None:
            return BY_PERSON if self._stopped_by == signal.SIGINT else START_AGAIN
        return 1 if ended[FAILED] else START_AGAIN if ended[INTERRUPTED] else 0

    def _start(self, run: SweepRun, gpus: str | None, lock: int | None) -> "_Child":
        self._folder.keep(run, STARTED)  # before there is a process that could outlive this one
        _say(f"starts   {run.name}")
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpus
        log = os.path.join(self._folder.model_dir(run), LOG)
        with open(log, "ab") as output:
            process = subprocess.Popen(
                list(self._command(run)),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=[lock] if lock is not None else [],
                start_new_session=True,  # Ctrl-C reaches it through `_stop` alone, and once
            )
        self._folder.keep(run, STARTED, process=process.pid)
        return _Child(process, gpus, log, os.path.getsize(log))

    def _note_end(self, run: SweepRun, child: "_Child") -> str:
        status = child.process.returncode
        took = duration(time.monotonic() - child.began)
        if status == 0:
            self._folder.keep(run, DONE)
            _say(f"done     {run.name}  {self._judge(run)}  in {took}")
            return DONE
        if status in (START_AGAIN, BY_PERSON) or status < 0:
            self._folder.keep(run, INTERRUPTED, exit_status=status)
            how = f"by {signal.Signals(-status).name}" if status < 0 else "and saved"
            _say(f"stopped  {run.name}  {how}, after {took}")
            return INTERRUPTED
        error = self._folder.last_errors(run)
        self._folder.keep(run, FAILED, exit_status=status, error=error)
        _say(f"failed   {run.name}  with status {status}, after {took}:\n{_indented(error)}")
        return FAILED

    def _tell(self, active: dict, waiting: int, ended: collections.Counter) -> None:
        """Every now and then a line on each run, and how many are left."""
        if not active or time.monotonic() - self._told < self._every:
            return
        self._told = time.monotonic()
        counts = ", ".join(f"{count} {state}" for state, count in sorted(ended.items()))
        _say(f"{len(active)} running, {waiting} waiting{', ' if counts else ''}{counts}")
        for run, child in active.items():
            print(f"           {run.name}  {child.last_line()}", flush=True)

    @contextlib.contextmanager
    def _catch_signals(self, active: dict) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            again = self._stopped_by is not None
            self._stopped_by = self._stopped_by or number
            if not again:
                _say(f"{signal.Signals(number).name}: {len(active)} runs save and stop ...")
            elif number == signal.SIGINT:
                _say("runs are ended without saving; they go on from their last checkpoints")
            elif number == signal.SIGTERM:
                return
            for child in list(active.values()):
                child.stop(signal.SIGKILL if again else signal.SIGTERM)

        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Child:
    """A run's process."""

    def __init__(self, process: subprocess.Popen, gpus: str | None, log: str, read_from: int):
        self.process = process
        self.gpus = gpus
        self.began = time.monotonic()
        self._log = log
        self._read_from = read_from

    def stop(self, number: int) -> None:
        """Sends a signal to the process and whatever it has started."""
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.process.pid, number)
            else:
                self.process.send_signal(number)

    def last_line(self) -> str:
        """How far it has said to be in this start: its last step, else the last line."""
        with open(self._log, "rb") as file:
            file.seek(max(self._read_from, os.path.getsize(self._log) - 4096))
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line]
        steps = [line for line in lines if line.startswith(("step ", "evaluation "))]
        return (steps or lines or ["starting"])[-1][:_WIDTH]


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def _indented(text: str) -> str:
    return "\n".join(f"           {line}" for line in text.splitlines())
