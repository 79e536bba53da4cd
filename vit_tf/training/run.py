"""One call from a gin configuration to a finished mode; what `tools/train.py` does."""

import csv
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vit_tf.analysis.label_text import label_set, label_text
from vit_tf.export import ExportOptions
from vit_tf.training import configuration
from vit_tf.training.dry_run import dry_run
from vit_tf.training.estimator import Estimator, class_names
from vit_tf.training.evaluations import Evaluator
from vit_tf.training.tasks import Task

MODES = ("train", "eval", "train_and_eval", "continuous_eval", "predict", "export")
_EVALUATING_MODES = ("train", "eval", "train_and_eval", "continuous_eval")


@configuration.configurable
def run(
    mode: str,
    model_dir: str | None,
    task: Callable[[], Task] | None = None,
    train_input: Callable[[], Any] | None = None,
    eval_input: Callable[[], Any] | None = None,
    evaluators: Sequence[Callable[[], Evaluator]] = (),
    checkpoint: str = "latest",
    export_dir: str | None = None,
    continuous_eval_timeout: float = 3600.0,
    allow_config_change: bool = False,
    only_plan: bool = False,
    export_options: ExportOptions | None = None,
) -> Any:
    """Does what a mode says with the task and the inputs that gin names.

    A gin file names them without calling them (`run.task = @Classification`, `run.train_input =
    @train/Input`): they are made after the strategy, which TPUs and workers need.

    Args:
      mode: one of `MODES`.
      model_dir: state of the run; only a plan may do without.
      task: makes the task.
      train_input: makes the training input.
      eval_input: makes the evaluation input.
      evaluators: each makes an evaluator, which training and evaluation run on other data; see
        `ProbeEvaluator`.
      checkpoint: for eval, predict and export: `"latest"`, `"best"`, a step or a path.
      export_dir: where exports go; default `model_dir/export`.
      continuous_eval_timeout: seconds that continuous_eval waits for a next checkpoint.
      allow_config_change: whether training may go on with another configuration than it began
        with.
      only_plan: does nothing but find out what training would be; see `dry_run`.
      export_options: what an export is to hold.

    Returns:
      Metrics of training and evaluation; the path that predict or export wrote, None in workers
      that leave an export to the chief; a `DryRun` with `only_plan`.

    Raises:
      ValueError: for an unknown mode or an input that the mode needs and gin does not name.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}; given {mode!r}")
    if task is None:
        raise ValueError("the configuration names no task, e.g. run.task = @Classification")
    run_config = configuration.bound("RunConfig")()
    notes = _Notes("dry_run" if only_plan else mode)
    if only_plan:
        planned = dry_run(run_config, task, train_input, eval_input, model_dir, evaluators)
        print(planned, flush=True)
        notes.say_unused()
        return planned
    estimator = Estimator(task(), model_dir, run_config, notes.config_text, allow_config_change)
    if mode in _EVALUATING_MODES:
        estimator.evaluators = [make() for make in evaluators]
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
        result = estimator.continuous_eval(needed("eval_input"), timeout=continuous_eval_timeout)
    elif mode == "predict":
        result = _write_predictions(estimator, needed("eval_input"), checkpoint)
    elif estimator.model_dir.chief:
        held_out = needed("eval_input")
        result = estimator.export_saved_model(held_out, export_dir, checkpoint, export_options)
        print(f"SavedModel: {result}", flush=True)
    else:
        result = None
        print("the chief worker exports; this one has nothing to do", flush=True)
    if estimator.model_dir.chief:
        notes.say_unused()
    return result


class _Notes:
    """Says once which bindings had no effect: before training starts, else at a mode's end."""

    def __init__(self, mode: str):
        self._mode = mode
        self._said = False

    def config_text(self) -> str:
        """The operative configuration, which the Estimator asks for when a run is set up."""
        self.say_unused()
        return configuration.operative_text()

    def say_unused(self) -> None:
        unused = configuration.unused_bindings()
        if unused and not self._said:
            print(f"bindings that mode {self._mode!r} does not use: {', '.join(unused)}")
        self._said = True


def _write_predictions(estimator: Estimator, held_out: Any, checkpoint: str) -> str:
    """Writes `predictions.csv`: index, true classes, predicted class and its probability."""
    names = class_names(held_out, estimator.model)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["index", "label", "prediction", "probability"])
    count = labelled = right = 0
    for row in estimator.predict(held_out, checkpoint):
        best = int(np.argmax(row["probabilities"]))
        probability = f"{row['probabilities'][best]:.4f}"
        writer.writerow([row["index"], label_text(row["label"], names), names[best], probability])
        true = label_set(row["label"])
        count, labelled, right = count + 1, labelled + bool(true), right + (best in true)
    tf.io.gfile.makedirs(estimator.model_dir.path)
    estimator.model_dir.write_text("predictions.csv", table.getvalue())
    path = estimator.model_dir.join("predictions.csv")
    of_labelled = f" of {labelled:,} with a label" if labelled < count else ""
    share = f"{right / max(labelled, 1):.4f} right{of_labelled}"
    print(f"{count:,} predictions, {share}: {path}", flush=True)
    return path
