"""Which runs a sweep consists of: a grid of gin bindings, or a list of them."""

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vit_tf.training.configuration_change import statements

_SEEDS = ("RunConfig.seed", "train/Input.seed")
_LONGEST_VALUE = 40


@dataclasses.dataclass(frozen=True)
class SweepRun:
    """One run of a sweep.

    Args:
      name: of its folder, such as `"learning_rate=0.003,steps=500"`.
      values: what is bound in it, such as `{"RunConfig.steps": "500"}`; values as gin has them.
    """

    name: str
    values: Mapping[str, str] = dataclasses.field(hash=False)

    @property
    def bindings(self) -> list[str]:
        """For `--gin_param`."""
        return [f"{binding} = {value}" for binding, value in self.values.items()]


def grid_runs(grids: Sequence[str], seeds: Sequence[int] = ()) -> list[SweepRun]:
    """Every combination of the values in a grid.

    Args:
      grids: each an axis, `"RunConfig.steps = [500, 2500]"`, or a file of them, one a line.
      seeds: each combination is run with each of these seeds, of the run and of its training data.

    Returns:
      The runs, the last axis varying fastest.

    Raises:
      FileNotFoundError: if a file is not there.
      ValueError: for an axis that is no list of values, or one that is given twice.
    """
    axes: dict[str, list[str]] = {}
    for grid in grids:
        for binding, value in statements(grid if "=" in grid else _text_of(grid)):
            if not isinstance(value, (list, tuple)) or not value:
                raise ValueError(
                    f"an axis of a grid is a list of values, {binding} = [0.001, 0.01]; given "
                    f"{value!r}"
                )
            if binding in axes:
                raise ValueError(f"the grid has {binding} twice; put all its values into one list")
            axes[binding] = list(dict.fromkeys(map(repr, value)))
    points = [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
    return _named(points if axes or seeds else [], seeds)


def listed_runs(file: str, seeds: Sequence[int] = ()) -> list[SweepRun]:
    """The runs that a file lists: one a line, bindings separated by `;`.

    Args:
      file: its path; lines that begin with `#` are comments.
      seeds: each line is run with each of these seeds.

    Raises:
      FileNotFoundError: if it is not there.
      ValueError: for a line that gin cannot read.
    """
    lines = [line.strip() for line in _text_of(file).splitlines()]
    points = [
        {binding: repr(value) for binding, value in statements(line.replace(";", "\n"))}
        for line in lines
        if line and not line.startswith("#")
    ]
    return _named(points, seeds)


def _text_of(file: str) -> str:
    path = Path(file)
    if not path.exists():
        raise FileNotFoundError(
            f"no file {file!r}; a grid is an axis such as 'RunConfig.steps = [500, 2500]', or a "
            "file of such lines, as in gin/sweeps"
        )
    return path.read_text(encoding="utf-8")


def _named(points: Sequence[Mapping[str, str]], seeds: Sequence[int]) -> list[SweepRun]:
    """Runs with names that tell them apart and stay the same when others are added."""
    runs = []
    for values in points:
        name = _name(values)
        if not seeds:
            runs.append(SweepRun(name, dict(values)))
        for seed in seeds:
            seeded = {**values, **dict.fromkeys(_SEEDS, str(seed))}
            runs.append(SweepRun(f"{name},seed={seed}" if name else f"seed={seed}", seeded))
    names = [run.name for run in runs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the run {name} is given {names.count(name)} times")
    return runs


def _name(values: Mapping[str, str]) -> str:
    last = [binding.rpartition(".")[2] for binding in values]
    parts = []
    for binding, value in values.items():
        short = binding.rpartition(".")[2]
        shown = short if last.count(short) == 1 else binding.replace("/", ".")
        parts.append(f"{shown}={_readable(value)}")
    return ",".join(parts)


def _readable(value: str) -> str:
    """A value as part of a file's name; what that loses is made up for by a hash."""
    plain = value.strip("'\"@")
    kept = re.sub(r"[^\w.+-]+", "-", plain).strip("-")[:_LONGEST_VALUE]
    if kept == plain:
        return kept
    return f"{kept}-{hashlib.sha256(value.encode()).hexdigest()[:6]}"


def varying(runs: Iterable[SweepRun]) -> list[str]:
    """The bindings in which runs differ, in their order; seeds of the data go without saying."""
    runs = list(runs)
    names = dict.fromkeys(binding for run in runs for binding in run.values)
    return [
        name
        for name in names
        if len({run.values.get(name) for run in runs}) > 1 and name != _SEEDS[1]
    ]
