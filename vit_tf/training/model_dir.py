"""What lies in `model_dir`: checkpoints, the best one, and which model they belong to.

    model_dir/
      model.json               the model's weights by name and shape
      config.gin               the operative configuration
      metrics.jsonl            one line a training log and evaluation
      checkpoints/ckpt-<step>  model, optimizer, step, random state, position in the data;
                               damaged/ holds those that could not be read
      best/best-<step>         the model that evaluated best, and best.json
      tensorboard/, pictures/, export/

Everything is written so that a process killed at any moment leaves the newest complete state:
checkpoints and small files are written aside and renamed.
"""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from vit_tf.models.lora import adaptation
from vit_tf.training.checkpoint_files import CheckpointFiles
from vit_tf.training.state import by_path, first_line


class ModelDir:
    """The folder of one run.

    Args:
      path: the folder; made if it is not there.
      chief: whether this process writes.
    """

    def __init__(self, path: str | os.PathLike, chief: bool = True):
        self.path = os.fspath(path)
        self.chief = chief
        self.checkpoints = CheckpointFiles(self.join("checkpoints"))
        self._best_saver: tf.train.Checkpoint | None = None

    def join(self, *names: str) -> str:
        """Path of something in the folder."""
        return os.path.join(self.path, *names)

    def write_text(self, name: str, text: str) -> None:
        """Writes a small file so that it is either the old or the new one, never half."""
        path = self.join(name)
        aside = f"{path}.{os.getpid()}.tmp"
        with tf.io.gfile.GFile(aside, "w") as file:
            file.write(text)
        tf.io.gfile.rename(aside, path, overwrite=True)

    def read_text(self, name: str) -> str | None:
        """Content of a file, or None if it is not there."""
        path = self.join(name)
        if not tf.io.gfile.exists(path):
            return None
        with tf.io.gfile.GFile(path, "rb") as file:
            return file.read().decode("utf-8", errors="replace")

    def claim(self, model: keras.Model, total_steps: int) -> None:
        """Makes the folder, if it is not there, that of a model's run.

        Raises:
          OSError: if it cannot be written.
          ValueError: if it belongs to another model.
        """
        self.check_model(model)
        record = {**_identity(model), "total_steps": total_steps}
        try:
            tf.io.gfile.makedirs(self.path)
            if self.chief:
                for name in _OF_THE_TRAINER:  # what a killed process left
                    _remove_files(self.join(f"{name}.*.tmp"))
                self.write_text("about.txt", _ABOUT)
                self.write_text("model.json", json.dumps(record, indent=1))
        except tf.errors.OpError as error:
            raise OSError(
                f"cannot write to model_dir {self.path}: {first_line(error)}. Choose another "
                "--model_dir, or make this one writable"
            ) from error

    @property
    def total_steps(self) -> int | None:
        """Length of the run as the trainer set it, or None if none has started."""
        return self._record("total_steps").get("total_steps")

    def check_model(self, model: keras.Model) -> None:
        """Finds whether the folder belongs to another model.

        Raises:
          ValueError: if so, naming what differs first, or if its `model.json` is damaged.
        """
        old, new = self._record("weights", "config"), _identity(model)
        if not old:
            return
        difference = _difference(old["weights"], new["weights"]) or ", ".join(
            f"{name} is {old['config'].get(name)!r} there and {value!r} here"
            for name, value in new["config"].items()
            if old["config"].get(name) != value
        )
        if difference:
            raise ValueError(
                f"model_dir {self.path} belongs to another model: {difference}. Give this model "
                "a --model_dir of its own, or delete that one to start over"
            )

    def _record(self, *needed: str) -> dict[str, Any]:
        """What the trainer wrote of the run's model; empty if none has started."""
        text = self.read_text("model.json")
        if text is None:
            return {}
        try:
            record = json.loads(text)
            missing = [name for name in needed if name not in record]
        except (ValueError, TypeError):
            missing = ["JSON"]
        if missing:
            raise ValueError(
                f"{self.join('model.json')} is damaged or of another version: it has no "
                f"{', no '.join(missing)}. Bring it back from a copy; or, if the folder is of the "
                "model that is configured now, delete the file"
            )
        return record

    def find_checkpoint(self, which: str) -> str:
        """Path of `"latest"`, `"best"`, a step number, or a path that is passed through.

        The latest is the newest one that can be read; what is wrong with newer ones is said.

        Raises:
          FileNotFoundError: if it is not there, naming those that are.
        """
        if which == "latest":
            path, problems = self.checkpoints.newest_whole()
            if path and problems:
                print(
                    f"damaged in {self.checkpoints.folder}: {'; '.join(problems)}. Taken instead: "
                    f"{os.path.basename(path)}",
                    flush=True,
                )
            path = path or self.checkpoints.latest()
        elif which == "best":
            best = self.best()
            path = best and self.join("best", best["checkpoint"])
        elif which.isdigit():
            path = self.checkpoints.path(int(which))
        else:
            path = which
        if path is None or not tf.io.gfile.exists(f"{path}.index"):
            found = tf.io.gfile.glob(self.join("*", "*.index"))
            names = ", ".join(sorted(os.path.basename(f).removesuffix(".index") for f in found))
            raise FileNotFoundError(
                f"no checkpoint {which!r} in {self.path}; there: {names or 'none'}. Train first "
                "with the same --model_dir (--mode=train), or name another --checkpoint"
            )
        return path

    # The best checkpoint

    def best(self) -> dict[str, Any] | None:
        """`{"checkpoint", "metric", "value", "step"}` of the best evaluation so far, or None."""
        text = self.read_text("best/best.json")
        return json.loads(text) if text else None

    def keep_if_best(
        self,
        model: keras.Model,
        metric: str,
        value: float,
        step: int,
        weights: Mapping[str, tf.Variable] | None = None,
    ) -> bool:
        """Saves the model if its value is larger than that of the best before.

        Args:
          model: what was evaluated.
          metric: name of the value.
          value: larger is better.
          step: optimizer steps done.
          weights: what it was evaluated with, by name, such as averages. Default: its own weights.

        Returns:
          Whether it was.
        """
        best = self.best()
        if not math.isfinite(value):
            return False
        if best and best["metric"] == metric and value <= best["value"]:
            return False
        tf.io.gfile.makedirs(self.join("best"))
        if self._best_saver is None:
            self._best_saver = tf.train.Checkpoint(model=weights or by_path(model.weights))
        name = f"best-{step}"
        self._best_saver.write(self.join("best", name))
        record = {"checkpoint": name, "metric": metric, "value": value, "step": step}
        self.write_text("best/best.json", json.dumps(record))
        for path in tf.io.gfile.glob(self.join("best", "best-*")):
            if not os.path.basename(path).startswith(f"{name}."):
                _remove_files(path)
        return True


_OF_THE_TRAINER = ("about.txt", "model.json", "config.gin", "metrics.jsonl", "best/best.json")
_ABOUT = """The state of one training run. The same command started again goes on from here.
checkpoints/  model, optimizer, step, random state, position in the data
best/         the model that evaluated best
metrics.jsonl one line a training log and evaluation;  config.gin  the operative configuration
tensorboard/  tensorboard --logdir .                   pictures/   predictions to look at
"""


# Settings of a model that training may change and that leave its function as it is.
_FREE_SETTINGS = {"name", "dtype", "trainable", "variant", "preprocessing", "head_bias_init"}
_FREE_SETTINGS |= {"position_stddev", "initialization", "origin", "dropout", "attention_dropout"}
_FREE_SETTINGS |= {"stochastic_depth", "stochastic_depth_schedule"}


def _identity(model: keras.Model) -> dict[str, Any]:
    """What makes a model that model: its weights' shapes, and its settings if it tells them."""
    weights = {name: list(weight.shape) for name, weight in by_path(model.weights).items()}
    settings = model.get_config() if hasattr(model, "preprocessing") else {}
    config = {name: settings[name] for name in settings if name not in _FREE_SETTINGS}
    lora = adaptation(model)
    if lora is not None:  # at another scale the same weights are another model
        config["lora"] = dataclasses.asdict(lora)
    return {
        "class": type(model).__name__,
        "variant": settings.get("variant"),
        "weights": weights,
        "config": json.loads(json.dumps(config, default=str)),
    }


def _difference(old: dict[str, list[int]], new: dict[str, list[int]]) -> str:
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name):
            continue
        if name not in new:
            lines.append(f"its weight {name} {old[name]} is not in this model")
        elif name not in old:
            lines.append(f"this model's weight {name} {new[name]} is not there")
        else:
            lines.append(f"{name} has shape {old[name]} there and {new[name]} here")
    more = f" (and {len(lines) - 2} more differences)" if len(lines) > 2 else ""
    return "; ".join(lines[:2]) + more


def _remove_files(pattern: str) -> None:
    for path in tf.io.gfile.glob(pattern):
        if tf.io.gfile.isdir(path):
            tf.io.gfile.rmtree(path)
        else:
            tf.io.gfile.remove(path)
