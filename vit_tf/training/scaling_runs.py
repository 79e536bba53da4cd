"""Finished runs as points of a scaling law: what their training took, and their error."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from vit_tf.analysis.flops import TRAINING_PASSES, count_flops
from vit_tf.analysis.scaling_law import ScalingPoint
from vit_tf.models import without_allocation
from vit_tf.models.registry import registered
from vit_tf.training.configuration_change import statements
from vit_tf.training.model_dir import ModelDir
from vit_tf.training.run_log import RunLog
from vit_tf.training.sweeps.folder import measured

# One of them lies in a run's folder: what the trainer writes, or what a sweep did before it.
_OF_A_RUN = ("model.json", "sweep_run.json")


@dataclasses.dataclass(frozen=True)
class ScalingRuns:
    """What folders of runs hold.

    Attributes:
      points: of the finished runs, compute in FLOPs.
      left_out: of the others, the folder and why.
    """

    points: list[ScalingPoint]
    left_out: dict[str, str]


def scaling_runs(folder: str | os.PathLike, metric: str = "accuracy") -> ScalingRuns:
    """Reads finished runs; no data and no checkpoint is needed.

    Compute is what all steps of a run took: three times the model's FLOPs for an image, for the
    forward and the backward pass, times the images seen. What came before the run, such as
    pre-training, is not in it, nor are teachers and second passes (co-submodels, SAM). The error is
    one minus the metric of the evaluation after the last step, as those before were taken in the
    middle of the schedule.

    Args:
      folder: of a run, or of several, as `tools/sweep.py` makes it.
      metric: name in the evaluation rows of `metrics.jsonl`, a share of what is right.

    Returns:
      A point a finished run, by name of folder. Models are named by what is registered; those that
      share a name, also by the settings in which they differ.

    Raises:
      FileNotFoundError: if there is no run in the folder.
    """
    folder = os.fspath(folder)
    runs, left_out = {}, {}
    for path in _run_folders(folder):
        try:
            runs[path] = _Run(ModelDir(path), metric)
        except _Unusable as problem:
            left_out[path] = str(problem)
    if not runs and not left_out:
        raise FileNotFoundError(
            f"there is no run in {folder}: neither it nor a folder in it holds a model.json, which "
            "tools/train.py and tools/sweep.py write"
        )
    names = _names([run.model for run in runs.values()])
    points, counted = [], {}
    for (path, run), name in zip(runs.items(), names, strict=True):
        model = json.dumps(run.model)
        try:
            if model not in counted:
                counted[model] = _flops(run.model)
            compute = TRAINING_PASSES * counted[model] * run.images
            points.append(ScalingPoint(compute, 1 - run.metric, name, path))
        except (ValueError, TypeError) as problem:  # no such model now; or no share, or all right
            left_out[path] = str(problem).removeprefix(f"{path}: ")
    return ScalingRuns(points, left_out)


class _Unusable(Exception):
    """A run that is no point, and why."""


class _Run:
    """What the files of a run say.

    Attributes:
      model: `"class"`, `"variant"` and `"config"` of it, as `model.json` has them.
      images: how many were seen in training.
      metric: after the last step.
    """

    def __init__(self, folder: ModelDir, metric: str):
        self.model = _model_record(folder)
        steps = self.model.pop("total_steps")
        found = measured(RunLog(folder).rows(), metric, "last")
        if found is None:
            raise _Unusable(f"no evaluation has the metric {metric!r}")
        self.metric, step = found
        if step < steps:
            raise _Unusable(f"it was evaluated at step {step:,}, and is to train {steps:,}")
        self.images = steps * _batch_size(folder)


def _run_folders(folder: str) -> list[str]:
    """The folder itself if it is a run's, and those in it that are."""
    if not tf.io.gfile.isdir(folder):
        return []
    inside = [name.rstrip("/") for name in sorted(tf.io.gfile.listdir(folder))]
    return [
        path
        for path in [folder, *(os.path.join(folder, name) for name in inside)]
        if any(tf.io.gfile.exists(os.path.join(path, name)) for name in _OF_A_RUN)
    ]


def _model_record(folder: ModelDir) -> dict[str, Any]:
    text = folder.read_text("model.json")
    if text is None:
        raise _Unusable("its training has not begun")
    try:
        record = json.loads(text)
        record = {name: record[name] for name in ("class", "variant", "config", "total_steps")}
    except (ValueError, TypeError, KeyError):
        raise _Unusable("its model.json is damaged or of another version") from None
    if record["class"] not in _classes():
        raise _Unusable(f"no family of models is registered whose class is {record['class']}")
    return record


def _batch_size(folder: ModelDir) -> int:
    """Images a step, over all replicas, as the run's configuration has it."""
    text = folder.read_text("config.gin")
    if text is None:
        raise _Unusable("it has no config.gin, which tells the size of its batches")
    try:
        bound = dict(statements(text))
    except ValueError:
        raise _Unusable("its config.gin cannot be read") from None
    name = f"{str(bound.get('run.train_input')).removeprefix('@')}.batch_size"
    value = bound.get(name)
    while str(value).startswith("%"):  # a macro
        value = bound.get(str(value)[1:])
    if not isinstance(value, int):
        raise _Unusable(f"its config.gin does not tell the size of its batches, {name}")
    return value


def _classes() -> dict[str, type[keras.Model]]:
    """Classes of models by name."""
    return {entry.model_class.__name__: entry.model_class for entry in registered().values()}


def _flops(model: Mapping[str, Any]) -> int:
    """FLOPs of one image forward, of a model that is built again, without weights."""
    # Low-rank matrices add next to nothing.
    config = {name: value for name, value in model["config"].items() if name != "lora"}
    return without_allocation(lambda: count_flops(_classes()[model["class"]](**config)))


def _names(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """The variant or class of each, with the settings in which models that share it differ."""
    names = [model["variant"] or model["class"] for model in models]
    told = []
    for name, model in zip(names, models, strict=True):
        same = [other["config"] for other, of in zip(models, names, strict=True) if of == name]
        differing = [
            f"{setting} {value}"
            for setting, value in model["config"].items()
            if any(other.get(setting) != value for other in same)
        ]
        told.append(f"{name} {', '.join(differing)}".strip())
    return told
