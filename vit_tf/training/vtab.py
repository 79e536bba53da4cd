"""VTAB-1k from a pre-trained model to its mean accuracy: what `tools/vtab.py` does.

For each task every point of a grid is trained on 800 examples and measured on 200 others. The best
one is trained again on all 1,000, once a seed, and measured on the test split, which nothing has
seen before (Zhai et al., 2019, arXiv:1910.04867).
"""

import csv
import io
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_tf.analysis.text_table import text_table
from vit_tf.data.vtab_source import VTABSource
from vit_tf.data.vtab_tasks import GROUPS, TASKS, VTABTask
from vit_tf.training import configuration
from vit_tf.training.model_dir import ModelDir
from vit_tf.training.sweeps.folder import DONE
from vit_tf.training.sweeps.grid import SweepRun, grid_runs
from vit_tf.training.sweeps.summary import Summary
from vit_tf.training.sweeps.sweep import Sweep

METRIC = "accuracy"
_SEEDS = ("RunConfig.seed", "train/Input.seed")


def choose_tasks(names: Sequence[str]) -> list[VTABTask]:
    """The tasks of some names and groups, in the benchmark's order; all if there are none.

    Raises:
      ValueError: for a name that is neither.
    """
    known = {*TASKS, *GROUPS}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"VTAB has no task or group {unknown[0]!r}; it has {', '.join([*GROUPS, *TASKS])}"
        )
    return [t for t in TASKS.values() if not names or t.name in names or t.group in names]


class VTAB:
    """The benchmark of one configuration, in one folder.

    The configuration names its task, classes and splits by the macros `TASK`, `NUM_CLASSES`,
    `TRAIN_SPLIT` and `EVAL_SPLIT`, as gin/vtab/vtab1k.gin does. The folder is the only state, as
    for a `Sweep`: `sweep/` holds the runs to choose by, `final/` those that are measured.

    Args:
      out_dir: the folder.
      gin_files: the configuration.
      gin_params: bindings that win over the files.
      tasks: see `choose_tasks`.
      grids: axes, see `grid_runs`; without any there is nothing to choose.
      seeds: of the final runs.
    """

    def __init__(
        self,
        out_dir: str | os.PathLike,
        gin_files: Sequence[str],
        gin_params: Sequence[str] = (),
        tasks: Sequence[VTABTask] = tuple(TASKS.values()),
        grids: Sequence[str] = (),
        seeds: Sequence[int] = (0,),
    ):
        self._files = ModelDir(out_dir)
        self._gin = (gin_files, gin_params)
        self.tasks = list(tasks)
        self._points = grid_runs(grids)
        self._seeds = seeds
        candidates = {task.name: self._candidates(task) for task in self.tasks}
        self._candidates_of = candidates
        runs = [run for some in candidates.values() for run in some]
        self.sweep = self._make_sweep("sweep", runs)

    def run(self, **how: Any) -> int:
        """Trains what is not done yet: first the candidates, then the chosen ones.

        Args:
          **how: see `Sweep.run`.

        Returns:
          The exit status, see `Sweep.run`. 0 after handing the candidates to a scheduler as well:
          the same call, once these are done, hands on the final runs.

        Raises:
          FileNotFoundError: if data sets are not there, naming all of them, before any run starts
            (with a `template` the runs may find them elsewhere).
        """
        if not how.get("template"):
            self._check_data()
        status = self.sweep.run(**how, metric=METRIC) if self.sweep.runs else 0
        if status:
            return status
        final = self.final()
        if final is None:
            print("the final runs come when all candidates are done; start the same command then")
            return 0
        return final.run(**how, metric=METRIC)

    def choose(self, task: VTABTask) -> SweepRun | None:
        """The candidate with the best validation accuracy at its end, of equal ones the first.

        Returns:
          None as long as one of them is not done.
        """
        candidates = self._candidates_of[task.name]
        if any(self.sweep.folder.state(run) != DONE for run in candidates):
            return None
        return Summary(self.sweep.folder, candidates, METRIC).best.run

    def final(self) -> Sweep | None:
        """The runs that are measured; None as long as a candidate is not done."""
        runs = []
        for task in self.tasks:
            chosen = self.choose(task) if self._points else SweepRun(task.name, {})
            if chosen is None:
                return None
            values = {**chosen.values, **_values(task, "train800val200", "test")}
            runs += [
                SweepRun(f"{chosen.name},seed={n}", {**values, **dict.fromkeys(_SEEDS, str(n))})
                for n in self._seeds
            ]
        return self._make_sweep("final", runs)

    def results(self) -> list[dict[str, Any]]:
        """A row a task: `"task"`, `"group"`, test accuracy as `"mean"`, `"std"` and `"seeds"`.

        Also `"chosen"`, the candidate's bindings, and its accuracy in `"validation"`. Tasks that
        are not done have a mean of None.
        """
        final = self.final()
        rows = []
        for task in self.tasks:
            chosen = self.choose(task) if self._points else None
            judged = chosen and Summary(self.sweep.folder, [chosen], METRIC).judged[0]
            own = [] if final is None else [r for r in final.runs if _task_of(r) == task.name]
            found = [one.value for one in Summary(final.folder, own).judged] if own else []
            done = bool(own) and all(final.folder.state(run) == DONE for run in own)
            keep = set(self._points[0].values) if self._points else set()
            rows.append(
                {
                    "task": task.name,
                    "group": task.group,
                    "mean": float(np.mean(found)) if done else None,
                    "std": float(np.std(found, ddof=1)) if done and len(found) > 1 else None,
                    "seeds": len(found) if done else 0,
                    "validation": judged.value if judged else None,
                    "chosen": {k: v for k, v in chosen.values.items() if k in keep}
                    if chosen
                    else {},
                }
            )
        return rows

    def write(self) -> list[str]:
        """Writes `vtab.csv` and `vtab.json`; returns their paths."""
        rows = self.results()
        table = io.StringIO()
        writer = csv.DictWriter(table, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows([{**row, "chosen": _short(row["chosen"])} for row in rows])
        content = json.dumps({"tasks": rows, "means": means(rows)}, indent=1)
        self._files.write_text("vtab.csv", table.getvalue())
        self._files.write_text("vtab.json", content)
        return [self._files.join("vtab.csv"), self._files.join("vtab.json")]

    def _check_data(self) -> None:
        configuration.parse(*self._gin)
        data_dir = configuration.bound_value("VTABSource.data_dir")
        given = {} if data_dir is None else {"data_dir": data_dir}
        missing = {}
        for task in self.tasks:
            try:
                VTABSource(task.name, "test", **given)
            except FileNotFoundError:
                missing[task.name] = task.build
        if missing:
            lines = "\n".join(f"  {name}: {build}" for name, build in missing.items())
            raise FileNotFoundError(
                f"{data_dir or 'the default data_dir'} lacks the data of {len(missing)} tasks; "
                f"get it, or leave them out by --tasks:\n{lines}"
            )

    def _candidates(self, task: VTABTask) -> list[SweepRun]:
        values = _values(task, "train800", "val200")
        return [
            SweepRun(f"{task.name},{point.name}", {**values, **point.values})
            for point in self._points
        ]

    def _make_sweep(self, name: str, runs: Sequence[SweepRun]) -> Sweep:
        return Sweep(self._files.join(name), *self._gin, runs)


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Unweighted means of accuracy over the tasks of each group, and over all.

    Args:
      rows: see `VTAB.results`.

    Returns:
      Rows of `"group"` (or `"all"`), `"mean"` (None if a task of it is not done), `"tasks"` and
      `"of"`, how many tasks there are, and how many in the benchmark.
    """
    found = []
    for group in (*GROUPS, "all"):
        values = [row["mean"] for row in rows if group in ("all", row["group"])]
        if values:
            of = sum(group in ("all", task.group) for task in TASKS.values())
            mean = None if None in values else float(np.mean(values))
            found.append({"group": group, "mean": mean, "tasks": len(values), "of": of})
    return found


def vtab_table(rows: Sequence[dict[str, Any]]) -> str:
    """Tasks and means as tables for the terminal; accuracies in percent."""
    cells = [
        [
            row["group"],
            row["task"],
            _percent(row["validation"]),
            _percent(row["mean"]),
            _percent(row["std"]),
            row["seeds"],
            _short(row["chosen"]),
        ]
        for row in rows
    ]
    titles = ["group", "task", "val200", "test", "std", "seeds", "chosen"]
    totals = [
        [row["group"], _percent(row["mean"]), f"{row['tasks']} of {row['of']}"]
        for row in means(rows)
    ]
    return f"{text_table([titles, *cells])}\n\n{text_table([['mean', 'test', 'tasks'], *totals])}"


def data_table(tasks: Sequence[VTABTask]) -> str:
    """What each task is made of, and how to get it."""
    titles = ["task", "group", "classes", "test", "how to get the data"]
    rows = [[t.name, t.group, t.num_classes, t.test_examples, t.build] for t in tasks]
    return (
        f"{text_table([titles, *rows])}\n\nTFDS needs further packages to prepare some of them: "
        "pip install opencv-python-headless scipy h5py"
    )


def _values(task: VTABTask, train: str, evaluation: str) -> dict[str, str]:
    return {
        "TASK": repr(task.name),
        "NUM_CLASSES": str(task.num_classes),
        "TRAIN_SPLIT": repr(train),
        "EVAL_SPLIT": repr(evaluation),
    }


def _task_of(run: SweepRun) -> str:
    return run.values["TASK"].strip("'")


def _short(values: dict[str, str]) -> str:
    return ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in values.items())


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.2f}"
