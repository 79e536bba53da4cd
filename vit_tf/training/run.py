"""One call from a gin configuration to a finished mode; what `tools/train.py` does."""

import csv
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from vit_tf.training import configuration
from vit_tf.training.estimator import Estimator, class_names
from vit_tf.training.tasks import Task

MODES = ("train", "eval", "train_and_eval", "continuous_eval", "predict", "export")


@configuration.configurable
def run(
    mode: str,
    model_dir: str,
    task: Callable[[], Task] | None = None,
    train_input: Callable[[], Any] | None = None,
    eval_input: Callable[[], Any] | None = None,
    checkpoint: str = "latest",
    export_dir: str | None = None,
) -> Any:
    """Does what a mode says with the task and the inputs that gin names.

    A gin file names them without calling them (`run.task = @Classification`, `run.train_input =
    @train/Input`): they are made after the strategy, which TPUs and workers need.

    Args:
      mode: one of `MODES`.
      model_dir: state of the run.
      task: makes the task.
      train_input: makes the training input.
      eval_input: makes the evaluation input.
      checkpoint: for eval, predict and export: `"latest"`, `"best"`, a step or a path.
      export_dir: where exports go; default `model_dir/export`.

    Returns:
      Metrics of training and evaluation; the path that predict or export wrote.

    Raises:
      ValueError: for an unknown mode or an input that the mode needs and gin does not name.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; given {mode!r}")
    if task is None:
        raise ValueError("the configuration names no task, e.g. run.task = @Classification")
    run_config = configuration.bound("RunConfig")()
    estimator = Estimator(task(), model_dir, run_config, configuration.operative_text)
    inputs = {"train_input": train_input, "eval_input": eval_input}

    def needed(name: str) -> Any:
        if inputs[name] is None:
            scope = name.removesuffix("_input")
            raise ValueError(f"mode {mode!r} needs run.{name}, e.g. run.{name} = @{scope}/Input")
        return inputs[name]()

    if mode == "train":
        result = estimator.train(needed("train_input"))
    elif mode == "train_and_eval":
        held_out = needed("eval_input")
        result = estimator.train_and_evaluate(needed("train_input"), held_out)
        estimator.picture(held_out)
    elif mode == "eval":
        held_out = needed("eval_input")
        result = estimator.evaluate(held_out, checkpoint)
        estimator.picture(held_out, checkpoint)
    elif mode == "continuous_eval":
        result = estimator.continuous_eval(needed("eval_input"))
    elif mode == "predict":
        result = _write_predictions(estimator, needed("eval_input"), checkpoint)
    else:
        result = estimator.export_saved_model(needed("eval_input"), export_dir, checkpoint)
        print(f"SavedModel: {result}", flush=True)
    unused = configuration.unused_bindings()
    if unused:
        print(f"bindings that mode {mode!r} did not use: {', '.join(unused)}", flush=True)
    return result


def _write_predictions(estimator: Estimator, held_out: Any, checkpoint: str) -> str:
    """Writes `predictions.csv`: index, true class, predicted class and its probability."""
    names = class_names(held_out, estimator.model)
    path = estimator.model_dir.join("predictions.csv")
    count = right = 0
    aside = f"{path}.{os.getpid()}.tmp"
    with tf.io.gfile.GFile(aside, "w") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "label", "prediction", "probability"])
        for row in estimator.predict(held_out, checkpoint):
            best = int(np.argmax(row["probabilities"]))
            probability = f"{row['probabilities'][best]:.4f}"
            writer.writerow([row["index"], names[row["label"]], names[best], probability])
            count, right = count + 1, right + (best == row["label"])
    tf.io.gfile.rename(aside, path, overwrite=True)
    print(f"{count:,} predictions, {right / max(count, 1):.4f} right: {path}", flush=True)
    return path
