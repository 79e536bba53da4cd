"""What a sweep has found: a table, files of it, and a picture."""

import csv
import dataclasses
import io
import json
from collections.abc import Sequence

import numpy as np

from vit_tf.analysis.png import write_png
from vit_tf.analysis.sweep_plot import plot_sweep
from vit_tf.analysis.text_table import text_table
from vit_tf.suggestions import did_you_mean
from vit_tf.training.sweeps.folder import DONE, FAILED, SweepFolder, measured
from vit_tf.training.sweeps.grid import SweepRun, varying

_SEED = "RunConfig.seed"


@dataclasses.dataclass(frozen=True)
class Judged:
    """A run and what it measured.

    Args:
      run: the run.
      state: how it is, see `SweepFolder.state`.
      value: the metric; None if it was not measured yet.
      step: at which it was measured.
    """

    run: SweepRun
    state: str
    value: float | None = None
    step: int | None = None


class Summary:
    """The runs of a sweep, the best first; those without a value last.

    Args:
      folder: of the sweep.
      runs: which ones.
      metric: what they are judged by, a name in the evaluation rows of `metrics.jsonl`.
      select: the `"last"` value of a run, or its `"best"`.
      lower: whether lower values are better.

    Raises:
      ValueError: if evaluations were written, and the metric is in none of them.
    """

    def __init__(
        self,
        folder: SweepFolder,
        runs: Sequence[SweepRun],
        metric: str = "accuracy",
        select: str = "last",
        lower: bool = False,
    ):
        self._folder = folder
        self.metric, self._select, self._lower = metric, select, lower
        self.axes = varying(runs)
        judged = [self.judge(run) for run in runs]
        if not any(one.value is not None for one in judged):
            _check_metric(folder, runs, metric)
        worst = float("inf")
        self.judged = sorted(
            judged,
            key=lambda one: worst if one.value is None else one.value * (1 if lower else -1),
        )

    def judge(self, run: SweepRun) -> Judged:
        """A run with its value as it is now."""
        state = self._folder.state(run) or "not started"
        found = measured(self._folder.rows(run), self.metric, self._select, self._lower)
        return Judged(run, state, *found) if found else Judged(run, state)

    @property
    def best(self) -> Judged | None:
        """The best of the runs that are done; None if there is none."""
        done = [one for one in self.judged if one.state == DONE and one.value is not None]
        return done[0] if done else None

    def over_seeds(self) -> list[dict]:
        """For each combination of the other values the mean over seeds, the best first.

        Returns:
          Rows of `"name"`, `"mean"`, `"std"` (of a sample) and `"seeds"`, of runs that are done.
        """
        groups: dict[tuple, list[float]] = {}
        for one in self.judged:
            if one.state == DONE and one.value is not None:
                others = [axis for axis in self.axes if axis != _SEED]
                point = tuple((axis, one.run.values.get(axis)) for axis in others)
                groups.setdefault(point, []).append(one.value)
        rows = [
            {
                "name": ", ".join(f"{_short(axis)} {value}" for axis, value in point) or "all",
                "mean": float(np.mean(values)),
                "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
                "seeds": len(values),
            }
            for point, values in groups.items()
        ]
        return sorted(rows, key=lambda row: row["mean"] * (1 if self._lower else -1))

    def table(self) -> str:
        """The runs as lines of a table, and the means over seeds where there are several."""
        rows = [
            [*values, None if value is None else f"{value:.4f}", step, state]
            for *values, value, step, state in self._cells()
        ]
        text = text_table([[*map(_short, self.axes), self.metric, "step", "state"], *rows])
        if _SEED in self.axes:
            means = [
                [row["name"], f"{row['mean']:.4f} ± {row['std']:.4f}", row["seeds"]]
                for row in self.over_seeds()
            ]
            text += f"\n\n{text_table([['', f'{self.metric}, mean and std', 'seeds'], *means])}"
        for one in self.judged:
            if one.state == FAILED:
                error = self._folder.about(one.run).get("error", "")
                text += f"\n\nfailed: {one.run.name}\n{error}"
        return text

    def write(self) -> list[str]:
        """Writes `summary.csv`, `summary.json` and `summary.png`; returns their paths."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["run", *self.axes, self.metric, "step", "state"])
        for one, cells in zip(self.judged, self._cells(), strict=True):
            writer.writerow([one.run.name, *("" if cell is None else cell for cell in cells)])
        rows = [
            {
                "run": one.run.name,
                "bindings": dict(one.run.values),
                self.metric: one.value,
                "step": one.step,
                "state": one.state,
            }
            for one in self.judged
        ]
        content = {
            "metric": self.metric,
            "select": self._select,
            "best": self.best and self.best.run.name,
            "runs": rows,
            "over_seeds": self.over_seeds(),
        }
        paths = [
            self._folder.write("summary.csv", table.getvalue()),
            self._folder.write("summary.json", json.dumps(content, indent=1)),
        ]
        points = [(one.run.values, one.value) for one in self.judged if one.value is not None]
        if points:
            paths.append(paths[0].removesuffix(".csv") + ".png")
            write_png(plot_sweep(points, self.axes, self.metric, self._lower), paths[-1])
        return paths

    def _cells(self) -> list[list]:
        """For each run its values, the metric, the step and the state."""
        return [
            [*(one.run.values.get(axis) for axis in self.axes), one.value, one.step, one.state]
            for one in self.judged
        ]


def _check_metric(folder: SweepFolder, runs: Sequence[SweepRun], metric: str) -> None:
    rows = [row for run in runs for row in folder.rows(run) if row["kind"] != "train"]
    known = sorted({name for row in rows for name in row} - {"step", "kind", "time"})
    if known:
        hint = did_you_mean(metric, known, count=1)
        raise ValueError(
            f"no evaluation has a metric {metric!r}.{hint} There are {', '.join(known)}"
        )


def _short(binding: str) -> str:
    return binding.rpartition(".")[2] if "/" not in binding else binding
