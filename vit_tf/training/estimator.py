"""The Estimator: train, evaluate, predict and export a task, with all state in `model_dir`."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vit_tf.analysis.learning_curve import plot_learning_curve
from vit_tf.export import ExportOptions, export_saved_model
from vit_tf.export.export_model import names_of_classes
from vit_tf.export.inference_model import inference_model
from vit_tf.training import strategies
from vit_tf.training.checkpoint_files import damage
from vit_tf.training.ema import Averages
from vit_tf.training.eval_loop import EvalLoop
from vit_tf.training.evaluations import (
    Evaluation,
    Evaluator,
    as_evaluations,
    check_evaluators,
    run_evaluator,
    say_evaluation,
)
from vit_tf.training.inputs import InputFn, distributed, make_dataset, named_data_errors
from vit_tf.training.model_dir import ModelDir
from vit_tf.training.pictures import keep_figure
from vit_tf.training.report import start_report
from vit_tf.training.run_config import RunConfig
from vit_tf.training.run_log import RunLog
from vit_tf.training.same_run import SameRun
from vit_tf.training.served_accuracy import served_accuracy
from vit_tf.training.state import holds_averages, load_weights
from vit_tf.training.tasks import Task
from vit_tf.training.train_run import TrainRun
from vit_tf.training.worker_agreement import check_workers_agree

# A process that evaluates beside a running trainer has a metrics file of its own.
_EVAL_METRICS = "metrics_eval.jsonl"
_MOST_PICTURED = 512


class Estimator:
    """Trains and evaluates a task on any `tf.distribute` strategy, as `TPUEstimator` did.

    `model_dir` is the only state: a run that is started again with the same arguments goes on
    from its newest checkpoint. On one CPU device its parameters and metrics are then, bit for
    bit, those of a run that was never stopped.

    Inputs are `vit_tf.data.Input`s, or functions that return a `tf.data.Dataset` of a replica's
    batches: dicts of `"image"`, `"label"` and optionally `"mask"` (0 for padding), or pairs. A
    function may take a `tf.distribute.InputContext`.

    Args:
      task: what is learned.
      model_dir: folder of checkpoints and logs; belongs to one model.
      run_config: how to train. The strategy is created here: make the Estimator before anything
        else that uses TensorFlow if it is to run on TPUs or several workers.
      config_text: returns the configuration as gin text, once the run is set up; kept as
        `config.gin` and shown in TensorBoard.
      allow_config_change: whether a run may go on with another configuration than it began with.

    Attributes:
      evaluators: what else is run on other data, such as `vit_tf.evaluation.ProbeEvaluator`s: in
        training every `every` steps and at the end, in `evaluate` and `continuous_eval` on each
        checkpoint. Make them after the Estimator.

    Raises:
      ValueError: for a strategy that cannot be had, and for workers that were not started alike.
    """

    def __init__(
        self,
        task: Task,
        model_dir: str | os.PathLike,
        run_config: RunConfig | None = None,
        config_text: Callable[[], str] | None = None,
        allow_config_change: bool = False,
    ):
        self.task = task
        self.config = run_config or RunConfig()
        self.strategy = strategies.create_strategy(
            self.config.strategy,
            self.config.tpu,
            self.config.virtual_cpus,
            self.config.tpu_zone,
            self.config.tpu_project,
        )
        check_workers_agree(self.strategy)
        tpu = strategies.is_tpu(self.strategy)
        self.config.set_determinism(tpu)
        self.precision = self.config.dtype_policy(tpu)
        self.model_dir = ModelDir(model_dir, chief=strategies.is_chief(self.strategy))
        self._same_run = SameRun(self.model_dir, config_text, allow_config_change)
        self._model: keras.Model | None = None
        self.evaluators: list[Evaluator] = []

    @property
    def model(self) -> keras.Model:
        """The task's model, built on first use with weights that follow from the seed."""
        if self._model is None:
            with self.strategy.scope():
                self._model = self._build_model()
        return self._model

    def _build_model(self) -> keras.Model:
        keras.utils.set_random_seed(self.config.seed)
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.precision)
        try:
            model = self.task.build_model()
        finally:
            keras.config.set_dtype_policy(policy)
        self.model_dir.check_model(model)
        return model

    def restore(self, checkpoint: str = "latest") -> int:
        """Loads a checkpoint's weights into the model, or the averages of them that it evaluates.

        Args:
          checkpoint: `"latest"`, `"best"`, a step number or a path.

        Returns:
          The step that the checkpoint is of.

        Raises:
          FileNotFoundError: if the checkpoint is not there.
        """
        path = self.model_dir.find_checkpoint(checkpoint)
        averages = self._takes_averages(path)
        with self.strategy.scope():
            return load_weights(self.model, path, averages)

    def train(self, input_fn: InputFn, steps: int | None = None) -> dict[str, float]:
        """Trains up to a number of steps, counted from the very start of the run.

        Args:
          input_fn: training data.
          steps: where to stop. Default: `RunConfig.steps` or `epochs`.

        Returns:
          The means of the last training loop; nothing if all steps were done before.

        Raises:
          FloatingPointError: if the loss is no longer a number.
          ValueError: for data that cannot be read or does not fit the model, naming it, for a
            `model_dir` of another model, and for another configuration than the run began with.
          OSError: if `model_dir` cannot be written, or the disk is full.
          SystemExit: with the state saved and status 75 (start again) after SIGTERM or a notice of
            maintenance, 130 after Ctrl-C.
        """
        run = self._start(input_fn, steps)
        return run.train(self._probes(run))

    def train_and_evaluate(
        self, train_input_fn: InputFn, eval_input_fn: InputFn, steps: int | None = None
    ) -> dict[str, float]:
        """Trains, evaluating every `RunConfig.eval_interval` steps and at the end.

        Args:
          train_input_fn: training data.
          eval_input_fn: evaluation data, all of it evaluated each time.
          steps: where to stop. Default: `RunConfig.steps` or `epochs`.

        Returns:
          The last evaluation.
        """
        self.task.check_input(self.model, eval_input_fn)
        run = self._start(train_input_fn, steps)
        averages = self._evaluated_averages(run)
        eval_loop = self._eval_loop(eval_input_fn, averages)
        last: dict[str, float] = {}

        def evaluate(step: int) -> None:
            last.update(
                self._evaluate(
                    eval_loop, eval_input_fn, step, run.log, keep_best=True, averages=averages
                )
            )

        run.train([Evaluation("eval", None, run.every_eval, evaluate), *self._probes(run)])
        rows = run.log.rows()
        if self.model_dir.chief:
            curve = plot_learning_curve(rows, self.task.metric)
            path = keep_figure(self.model_dir, "learning_curve", curve, run.step)
            print(f"learning curve: {path}")
        if last:
            return last
        # Nothing was left to train; the run before has mostly evaluated its end.
        ends = [row for row in rows if row["kind"] == "eval" and row["step"] == run.step]
        if not ends:
            evaluate(run.step)
            return last
        about = ("step", "kind", "time")
        return {k: v for k, v in ends[-1].items() if k not in about}

    def evaluate(self, input_fn: InputFn, checkpoint: str = "latest") -> dict[str, float]:
        """Evaluates a checkpoint on every example of the input, each counted once.

        Args:
          input_fn: evaluation data; padding must have `"mask"` 0.
          checkpoint: `"latest"`, `"best"`, a step number or a path.

        Returns:
          Name -> mean, and how many `"examples"` were counted; where some have no label, also
          how many `"left_out_examples"` there are.

        Raises:
          FileNotFoundError: if the checkpoint is not there.
        """
        step = self.restore(checkpoint)
        self.task.check_input(self.model, input_fn)
        check_evaluators(self.evaluators, self.model)
        log = RunLog(self.model_dir, _EVAL_METRICS)
        values = self._evaluate(self._eval_loop(input_fn), input_fn, step, log)
        self._run_evaluators(step, log)
        return values

    def continuous_eval(
        self, input_fn: InputFn, timeout: float = 3600.0, steps: int | None = None
    ) -> dict[str, float]:
        """Evaluates the newest checkpoint whenever another process wrote one, until the last.

        The best one is kept if the trainer does not do that itself (`train`, not
        `train_and_evaluate`).

        Args:
          input_fn: evaluation data.
          timeout: seconds to wait for a next checkpoint before giving up.
          steps: step of the last checkpoint. Default: where the trainer said that it ends.

        Returns:
          The last evaluation.

        Raises:
          FileNotFoundError: if no checkpoint appears in time.
        """
        self.task.check_input(self.model, input_fn)
        check_evaluators(self.evaluators, self.model)
        folder = self.model_dir.join("checkpoints")
        loop, log = self._eval_loop(input_fn), RunLog(self.model_dir, _EVAL_METRICS)
        values: dict[str, float] = {}
        print(f"waiting for checkpoints in {folder}", flush=True)
        for path in self.model_dir.checkpoints.as_they_come(timeout):
            try:
                step = self.restore(path)
            except (FileNotFoundError, ValueError):
                problem = damage(path)
                if problem is None:
                    raise
                if tf.io.gfile.exists(f"{path}.index"):  # else the trainer has replaced it
                    print(f"not evaluated, for it is damaged: {problem}", flush=True)
                continue
            trainer_rows = RunLog(self.model_dir).rows()
            trainer_evaluates = any(row["kind"] == "eval" for row in trainer_rows)
            values = self._evaluate(loop, input_fn, step, log, keep_best=not trainer_evaluates)
            self._run_evaluators(step, log)
            if step >= (steps or self.model_dir.total_steps):
                break
        if not values:
            raise FileNotFoundError(
                f"no checkpoint appeared in {folder} within {timeout:.0f} s; start training with "
                "the same --model_dir"
            )
        return values

    def predict(
        self, input_fn: InputFn, checkpoint: str = "latest"
    ) -> Iterator[dict[str, np.ndarray]]:
        """Predicts each example of an input once.

        Args:
          input_fn: evaluation data.
          checkpoint: `"latest"`, `"best"`, a step number or a path.

        Yields:
          For each example what the input has (`"image"`, `"label"`, `"index"`) and the task's
          outputs, as NumPy arrays.

        Raises:
          ValueError: under several replicas, where examples would come out of order.
        """
        if self.strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "predict runs on one device; set RunConfig.strategy = 'cpu' (it has "
                f"{self.strategy.num_replicas_in_sync} replicas)"
            )
        self.restore(checkpoint)
        self.task.check_input(self.model, input_fn)
        predict = tf.function(lambda images: self.task.predict_values(self.model, images))
        with named_data_errors(input_fn, self.strategy):
            for batch in make_dataset(input_fn, tf.distribute.InputContext()):
                outputs = self.strategy.run(predict, args=(batch["image"],))
                columns = {name: value.numpy() for name, value in {**batch, **outputs}.items()}
                for row in np.flatnonzero(columns.pop("mask")):
                    yield {name: value[row] for name, value in columns.items()}

    def picture(self, input_fn: InputFn, checkpoint: str = "latest") -> str | None:
        """Draws what the task makes of the first examples, into `pictures/` and TensorBoard.

        Args:
          input_fn: evaluation data, of which at most 512 examples are looked at.
          checkpoint: `"latest"`, `"best"`, a step number or a path.

        Returns:
          Path of the PNG file; None if the task has no picture, and under several replicas,
          which cannot predict.
        """
        if self.strategy.num_replicas_in_sync > 1:
            if self.model_dir.chief:
                print("no picture of predictions: they run on one device (--mode=eval there)")
            return None
        rows = list(itertools.islice(self.predict(input_fn, checkpoint), _MOST_PICTURED))
        figure = self.task.figure(rows, class_names(input_fn, self.model))
        if figure is None:
            return None
        step = int(self.model_dir.find_checkpoint(checkpoint).rpartition("-")[2])
        path = keep_figure(self.model_dir, "predictions", figure, step)
        print(f"picture: {path}", flush=True)
        return path

    def export_saved_model(
        self,
        evaluation_input: Any,
        export_dir: str | os.PathLike | None = None,
        checkpoint: str = "latest",
        options: ExportOptions | None = None,
    ) -> str:
        """Writes a SavedModel that takes encoded images and does the evaluation's preprocessing.

        Args:
          evaluation_input: the evaluation `vit_tf.data.Input`: its preprocessing and class names
            go into the SavedModel, its images into the check that served equals evaluated.
          export_dir: where to; each export is a new numbered folder in it, as TensorFlow Serving
            watches them. Default: `model_dir/export`.
          checkpoint: `"latest"`, `"best"`, a step number or a path.
          options: precision, weights, signatures; see `ExportOptions`.

        Returns:
          The folder that was written.

        Raises:
          RuntimeError: if served outputs differ from evaluated ones; nothing is published then.
          ValueError: if the checkpoint does not hold the weights that are asked for.
        """
        options = options or ExportOptions()
        path = self.model_dir.find_checkpoint(checkpoint)
        model = self._build_model()  # outside the strategy: a SavedModel must not hold replicas
        self.task.check_input(model, evaluation_input)
        kind, averages = self._exported_weights(path, options.weights)
        step = load_weights(model, path, averages)
        model = inference_model(model, options)
        return export_saved_model(
            model,
            predict=lambda images: self.task.predict_values(model, images),
            evaluation_input=evaluation_input,
            class_names=class_names(evaluation_input, model),
            export_dir=os.fspath(export_dir or self.model_dir.join("export")),
            facts={
                "step": step,
                "checkpoint": path,
                "weights": kind,
                "evaluation": self._evaluation_of(step),
                "configuration": self.model_dir.read_text("config.gin"),
            },
            options=options,
            measure=served_accuracy(evaluation_input) if options.evaluate else None,
        )

    def _exported_weights(self, path: str, wanted: str | None) -> tuple[str, bool]:
        """`"averages"` or `"raw"`, and whether they are the averages beside a checkpoint's weights.

        The best checkpoint holds nothing but what was evaluated, which may be the averages.
        """
        is_best = os.path.dirname(path) == self.model_dir.join("best")
        ema = self.config.ema
        alone = "averages" if is_best and ema and ema.evaluate else "raw"
        if wanted is None and self._takes_averages(path):
            return "averages", True
        if wanted in (None, alone):
            return alone, False
        if wanted == "averages" and holds_averages(path):
            return wanted, True
        raise ValueError(
            f"{path} holds no {wanted} weights, only {alone} ones; leave --weights_kind out, or "
            "name another --checkpoint of a run with RunConfig.ema"
        )

    def _evaluation_of(self, step: int) -> dict[str, Any] | None:
        """The run's last evaluation at a step, or else before it; None if there is none."""
        logs = [RunLog(self.model_dir), RunLog(self.model_dir, _EVAL_METRICS)]
        rows = [row for log in logs for row in log.rows() if row["kind"] == "eval"]
        rows = [row for row in rows if row["step"] <= step]
        last = max(rows, key=lambda row: row["step"], default=None)
        return last and {name: last[name] for name in last if name not in ("kind", "time")}

    def _start(self, input_fn: InputFn, steps: int | None) -> TrainRun:
        """Sets a training run up, restores it and says what is about to happen."""
        self.task.check_input(self.model, input_fn)
        check_evaluators(self.evaluators, self.model)
        with self.strategy.scope():
            self.task.prepare(self.model, input_fn)
        length = self.config.total_steps(
            getattr(input_fn, "steps_per_epoch", None),
            steps,
            getattr(input_fn, "examples_per_epoch", None),
        )
        total = steps or length
        run = TrainRun(
            self.task,
            self.model,
            self.strategy,
            self.config,
            self.model_dir,
            input_fn,
            total_steps=total,
            schedule_steps=length,
            check_config=self._same_run.check_config,
        )
        self._same_run.check_identity(self.task.identity(), run.step)
        if self.model_dir.chief:
            report = start_report(
                self.task,
                self.model,
                self.strategy,
                self.precision,
                input_fn,
                run.global_batch,
                total,
                run.step,
                self.model_dir.path,
            )
            report += f"\n{self.config.optimization.describe()}"
            print(report, flush=True)
            run.log.write_text("run", report)
            self._same_run.keep_config(run.log)
        return run

    def _evaluated_averages(self, run: TrainRun) -> Averages | None:
        """A run's averages, if these are evaluated."""
        return run.loop.step.averages if self.config.ema and self.config.ema.evaluate else None

    def _probes(self, run: TrainRun) -> list[Evaluation]:
        """The evaluators as parts of a run."""
        averages = self._evaluated_averages(run)
        return as_evaluations(
            self.evaluators,
            run.steps_between,
            model=self.model,
            strategy=self.strategy,
            log=run.log,
            weights=averages and averages.in_place_of_weights,
        )

    def _run_evaluators(self, step: int, log: RunLog) -> None:
        """Runs all evaluators on the model as it was restored."""
        for evaluator in self.evaluators:
            run_evaluator(evaluator, step, self.model, self.strategy, log)

    def _eval_loop(self, input_fn: InputFn, averages: Averages | None = None) -> EvalLoop:
        dataset = distributed(input_fn, self.strategy)
        if averages is None:
            return EvalLoop(self.task, self.model, self.strategy, dataset)
        weights = averages.in_place_of_weights
        return EvalLoop(self.task, self.model, self.strategy, dataset, weights)

    def _evaluate(
        self,
        loop: EvalLoop,
        input_fn: InputFn,
        step: int,
        log: RunLog,
        keep_best: bool = False,
        averages: Averages | None = None,
    ) -> dict[str, float]:
        """Evaluates and logs; `averages` are those that `loop` evaluates, None the model's own."""
        start = time.monotonic()
        with named_data_errors(input_fn, self.strategy):
            count = getattr(input_fn, "eval_steps", None)
            steps = count(strategies.num_workers(self.strategy)) if count else -1
            values = loop.evaluate(tf.constant(steps))
        seconds = time.monotonic() - start
        metric = self.task.metric
        best = False
        if keep_best and self.model_dir.chief:
            weights = averages and averages.variables
            best = self.model_dir.keep_if_best(self.model, metric, values[metric], step, weights)
        if self.model_dir.chief:
            say_evaluation(step, values, seconds, averaged=averages is not None, best=best)
        log.write("eval", step, values)
        return values

    def _takes_averages(self, path: str) -> bool:
        """Whether a checkpoint's averages are wanted, and there; says so."""
        wanted = self.config.ema is None or self.config.ema.evaluate
        averages = wanted and holds_averages(path)
        if averages and self.model_dir.chief:
            print(
                f"{os.path.basename(path)}: its averaged weights are taken (Ema.evaluate = False "
                "takes the others)",
                flush=True,
            )
        return averages


def class_names(input_fn: InputFn, model: keras.Model) -> list[str]:
    """A name for each of a model's classes: the input's, or their numbers."""
    return names_of_classes(getattr(input_fn, "class_names", None), model)
