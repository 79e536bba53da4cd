"""A sweep from its flags to its summary; what `tools/sweep.py` does."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import vit_tf.training.run  # noqa: F401  gin knows `run` by it
from vit_tf.training import configuration
from vit_tf.training.sweeps.folder import DONE, FAILED, SUBMITTED, SweepFolder
from vit_tf.training.sweeps.grid import SweepRun
from vit_tf.training.sweeps.local import LocalRuns
from vit_tf.training.sweeps.submit import submission, submit_all
from vit_tf.training.sweeps.summary import Summary

_TRAIN = Path(__file__).resolve().parents[3] / "tools" / "train.py"


class Sweep:
    """Runs of one configuration with different bindings, each a `model_dir` of `tools/train.py`.

    The folder is the only state: the same sweep started again goes on, and one with more runs adds
    these.

    Args:
      sweep_dir: folder of the runs.
      gin_files: what all runs share.
      gin_params: bindings that all runs share and that win over the files.
      runs: what differs; see `grid_runs` and `listed_runs`.

    Raises:
      ValueError: for bindings that a run cannot have, before any has started.
    """

    def __init__(
        self,
        sweep_dir: str | os.PathLike,
        gin_files: Sequence[str],
        gin_params: Sequence[str],
        runs: Sequence[SweepRun],
    ):
        self.folder = SweepFolder(sweep_dir)
        self.runs = list(runs)
        self._gin_files = [os.path.abspath(f) if os.path.exists(f) else f for f in gin_files]
        self._gin_params = list(gin_params)
        for run in self.runs:
            try:
                configuration.parse(gin_files, [*gin_params, *run.bindings])
            except ValueError as error:
                raise ValueError(f"the run {run.name} cannot be: {error}") from error
        self._parsed = configuration.parsed_text()  # of the last run; it differs in `values` alone

    def command(self, run: SweepRun) -> list[str]:
        """The command of a run."""
        model_dir = self.folder.model_dir(run)
        return [
            sys.executable,
            str(_TRAIN),
            *(f"--gin_file={file}" for file in self._gin_files),
            *(f"--gin_param={binding}" for binding in [*self._gin_params, *run.bindings]),
            f"--model_dir={model_dir if '://' in model_dir else os.path.abspath(model_dir)}",
        ]

    def run(
        self,
        jobs: int = 1,
        gpus: Sequence[str] = (),
        retry: bool = False,
        template: str | None = None,
        metric: str = "accuracy",
        select: str = "last",
        lower: bool = False,
    ) -> int:
        """Runs, or submits, what is not done.

        Args:
          jobs: how many processes at a time.
          gpus: a job on each of these, as `CUDA_VISIBLE_DEVICES` takes them.
          retry: starts failed runs again, and submits again what was submitted and is not done.
          template: submits runs by this command instead of starting processes; see `submission`.
          metric: what finished runs are reported with.
          select: see `Summary`.
          lower: likewise.

        Returns:
          The exit status; see `LocalRuns.start_all`.

        Raises:
          FileExistsError: if another sweep is at work in the folder.
          ValueError: if the folder is of another sweep, or the template is wrong.
        """
        if template is not None and self.runs:
            submission(template, self.runs[0], ["true"], "")  # raises before anything is sent
        with self.folder.locked() as lock:
            self.folder.claim(self._parsed, {name for run in self.runs for name in run.values})
            states = {run: self.folder.state(run) for run in self.runs}
            left_out = {DONE} if retry else {DONE, FAILED, SUBMITTED}
            waiting = [run for run, state in states.items() if state not in left_out]
            self._say_what_is_left(states, waiting)
            if template is not None:
                return submit_all(self.folder, waiting, template, self.command)
            summary = Summary(self.folder, [], metric, select, lower)

            def judge(run: SweepRun) -> str:
                value = summary.judge(run).value
                return "" if value is None else f"{metric} {value:.4f}"

            local = LocalRuns(self.folder, self.command, jobs, gpus, judge)
            status = local.start_all(waiting, lock)
            failed = any(self.folder.state(run) == FAILED for run in self.runs)
            return 1 if status == 0 and failed else status

    def summary(
        self, metric: str = "accuracy", select: str = "last", lower: bool = False
    ) -> Summary:
        """What these runs have found so far."""
        return Summary(self.folder, self.runs, metric, select, lower)

    def _say_what_is_left(
        self, states: dict[SweepRun, str | None], waiting: Sequence[SweepRun]
    ) -> None:
        counts = {s: list(states.values()).count(s) for s in (DONE, FAILED, SUBMITTED)}
        told = [f"{count} {state}" for state, count in counts.items() if count]
        begun = sum(states[run] is not None for run in waiting)
        told += [f"{len(waiting)} to run"] + ([f"{begun} of them begun before"] if begun else [])
        print(f"{len(self.runs)} runs in {self.folder.path}: {', '.join(told)}", flush=True)
        left = [
            run for run in self.runs if run not in waiting and states[run] in (FAILED, SUBMITTED)
        ]
        if left:
            print("--retry starts failed runs, and submits unfinished ones, again", flush=True)
