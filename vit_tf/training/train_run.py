"""One training run: restored from `model_dir`, driven by Orbit's controller, saved as it goes."""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence

import keras
import orbit
import tensorflow as tf

from vit_tf.training.checkpoint_writer import CheckpointWriter
from vit_tf.training.evaluations import Evaluation, next_stop
from vit_tf.training.inputs import InputFn, distributed, global_batch, named_data_errors
from vit_tf.training.loop import TrainLoop
from vit_tf.training.model_dir import ModelDir
from vit_tf.training.pictures import Pictures
from vit_tf.training.preemption import (
    Preempted,
    StopRequest,
    catch_stop_requests,
    sum_over_replicas,
)
from vit_tf.training.profiling import Profiler
from vit_tf.training.progress import Progress
from vit_tf.training.run_config import RunConfig
from vit_tf.training.run_length import Duration, RunLength
from vit_tf.training.run_log import RunLog
from vit_tf.training.state import RESTORE_ERRORS, by_path, first_line, optimizer_state
from vit_tf.training.step import TrainStep
from vit_tf.training.strategies import is_tpu, num_workers
from vit_tf.training.tasks import Task


class TrainRun:
    """Brings a model from where `model_dir` stands to a number of steps.

    Logs, checkpoints and evaluations fall between loops of `steps_per_loop` steps, and loops
    always end at multiples of it. So a run that goes on from a checkpoint logs the same means, at
    the same steps, as one that was never stopped. Only a request to stop cuts a loop in two; its
    sums are then in the checkpoint.

    Args:
      task: what is learned.
      model: the task's model.
      strategy: where to run.
      config: how to train.
      model_dir: where the state lies; restored from here on construction.
      input_fn: training data.
      total_steps: where to stop, counted from the run's very start.
      schedule_steps: the length that the learning-rate schedule is made for.
      check_config: called when all parts are made and `model_dir` is still as it was found;
        raises if the run must not go on.
    """

    def __init__(
        self,
        task: Task,
        model: keras.Model,
        strategy: tf.distribute.Strategy,
        config: RunConfig,
        model_dir: ModelDir,
        input_fn: InputFn,
        total_steps: int,
        schedule_steps: int,
        check_config: Callable[[], None] = lambda: None,
    ):
        self._strategy = strategy
        self._config = config
        self._model_dir = model_dir
        self._input_fn = input_fn
        self.total_steps = total_steps
        self.every_eval, self._every_checkpoint, self._per_loop = config.intervals(schedule_steps)
        self.global_batch = global_batch(input_fn, strategy)
        with strategy.scope():
            examples = getattr(input_fn, "examples_per_epoch", None)
            length = RunLength(schedule_steps, self.global_batch, examples)
            optimizer = config.optimization.build(model, length)
        self._length = length
        self._keep_every = length.in_steps(config.keep_every or 0, "RunConfig.keep_every")
        check_config()
        model_dir.claim(model, total_steps)
        step = TrainStep(task, model, config, strategy, self.global_batch)
        self._profiler = Profiler(config.profile_steps, model_dir.join("tensorboard", "train"))
        self.loop = TrainLoop(step, strategy, self._per_loop, self._profiler)
        # Position in the data and seed of the randomness: with the step they say what comes next.
        self._examples_seen = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._seed = tf.Variable(config.seed, dtype=tf.int64, trainable=False)
        state = {
            "model": by_path(model.weights),
            "optimizer": optimizer_state(optimizer),
            "examples_seen": self._examples_seen,
            "seed": self._seed,
            "sums": step.sums,
        }
        if step.averages:
            state["ema"] = step.averages.variables
        if step.watch:
            state["bad_steps"] = step.watch.variables
        self._checkpoint = tf.train.Checkpoint(**state)
        self._writer = CheckpointWriter(
            model_dir.checkpoints,
            state,
            keep=config.keep_checkpoints,
            for_good=self._is_for_good,
            chief=model_dir.chief,
            in_background=config.async_checkpoints,
        )
        self._saved_step = self._restore()
        self._check_workers_agree()
        self.log = RunLog(model_dir)
        self.log.rewind(self.step)
        self.log.say_what_is_missing(self.step - self.step % self._per_loop)
        self._progress = Progress(
            total_steps,
            self.global_batch,
            quiet=not model_dir.chief,
            devices=strategy.num_replicas_in_sync,
            steps_per_epoch=length.steps_per_epoch,
        )
        self._pictures = Pictures(self.log, model, config.image_interval, config.histogram_interval)
        self._last_step = self.step
        self._last_values: dict[str, float] = {}

    @property
    def step(self) -> int:
        """Optimizer steps done since the very start of the run."""
        return int(self.loop.global_step.numpy())

    def steps_between(self, every: Duration | None, name: str) -> int:
        """Steps between two evaluations, which fall between loops.

        Args:
          every: steps, or a duration that is brought to the nearest end of a loop; None: as
            `RunConfig.eval_interval`.
          name: of the setting, for errors.

        Raises:
          ValueError: for a number of steps that the loops do not end at, with one that would do.
        """
        if every is None:
            return self.every_eval
        steps = self._length.in_steps(every, name)
        loops = max(1, round(steps / self._per_loop))
        if steps % self._per_loop and isinstance(every, int):
            raise ValueError(
                f"{name} is {every} steps, of which RunConfig.steps_per_loop {self._per_loop} is "
                f"no divisor; take {loops * self._per_loop}, or set RunConfig.steps_per_loop = "
                f"{math.gcd(steps, self._per_loop)}"
            )
        return loops * self._per_loop

    def train(self, evaluations: Sequence[Evaluation] = ()) -> dict[str, float]:
        """Trains to the end.

        Args:
          evaluations: what is measured as it goes, and at the end.

        Returns:
          The means of the last loop; nothing if no step was left.
        """
        for evaluation in self._missing(evaluations):
            evaluation.run(self.step)
        start_step = int(self._examples_seen.numpy()) // self.global_batch
        done_before = self.step
        self._progress.start(self.step)
        self._pictures.start(self.step)

        def position() -> int:
            return start_step + self.step - done_before

        tpu = is_tpu(self._strategy)
        with (
            catch_stop_requests(tpu) as request,
            self._writer,
            self._reading_from(start_step),
        ):
            if num_workers(self._strategy) == 1:  # several have to agree, after a whole loop
                self.loop.should_stop = lambda: request.reason is not None
            controller = orbit.Controller(
                global_step=self.loop.global_step,
                trainer=self.loop,
                strategy=self._strategy,
                train_actions=[lambda values: self._after_loop(values, request)],
                steps_per_loop=lambda step: int(self._per_loop - step % self._per_loop),
            )
            while self.step < self.total_steps:
                with named_data_errors(self._input_fn, self._strategy, position, self._per_loop):
                    stop = next_stop(evaluations, self.step, self.total_steps)
                    controller.train(stop, checkpoint_at_completion=False)
                for evaluation in evaluations:
                    if evaluation.is_due(self.step, self.total_steps):
                        evaluation.run(self.step)
                        self._progress.start(self.step)
                        self._stop_if_asked(request)
        return self._last_values

    @contextlib.contextmanager
    def _reading_from(self, step: int) -> Iterator[None]:
        """Opens the training data, and closes it before the interpreter shuts down.

        Threads that still prepare batches then can keep a finished process from ending.
        """
        self.loop.train_dataset = distributed(self._input_fn, self._strategy, step)
        images = tf.nest.flatten(
            self.loop.train_dataset.element_spec["image"], expand_composites=True
        )
        self.loop.step.keep_images(images[0].shape[1:])
        try:
            yield
        finally:
            self._profiler.close()
            self.loop.train_dataset = None

    def _after_loop(self, values: dict[str, float], request: StopRequest) -> None:
        """Checks, logs and saves what a loop did; Orbit's action after every loop."""
        step = self.step
        self._writer.check()
        watch, steps = self.loop.step.watch, f"between steps {self._last_step + 1} and {step}"
        if watch:
            watch.check_steps(values, steps, self._last_good)
        self._examples_seen.assign_add((step - self._last_step) * self.global_batch)
        self._last_step = step
        if step % self._per_loop and step != self.total_steps:
            self._stop_if_asked(request)  # in the midst of a loop: its row is still to come
            return
        if watch:
            watch.check_loss(values["loss"], steps, self._last_good)
        values |= self._learning_rates()
        speed = self._progress.update(step, values)
        values.pop("input_wait_seconds")
        norms = {name: values.pop(name) for name in list(values) if "_norm/" in name}
        self._last_values = values | speed
        self.log.write("train", step, self._last_values, only_curves=norms)
        self._pictures.update(step, self.loop.step.images)
        if step % self._every_checkpoint == 0 or step == self.total_steps:
            self._save()
        self._stop_if_asked(request)

    def _learning_rates(self) -> dict[str, float]:
        """The rate for the log, and those of the groups if there are several."""
        rate = float(tf.convert_to_tensor(self._config.optimization.optimizer.learning_rate))
        groups = self._config.optimization.learning_rates()
        several = {f"learning_rate/{name}": value for name, value in groups.items()}
        return {"learning_rate": rate} | (several if len(several) > 1 else {})

    def _save(self) -> None:
        self._writer.save(self.step)
        self._saved_step = self.step

    def _stop_if_asked(self, request: StopRequest) -> None:
        status = request.exit_status(self._strategy)
        if status is None:
            return
        if self._saved_step != self.step:
            self._save()
        self._writer.wait()
        path = self._model_dir.checkpoints.path(self.step)
        saved = f"saved {path}" if self._model_dir.chief else "the chief saved"
        print(f"{saved} after step {self.step}; the same command goes on from there", flush=True)
        raise Preempted(status)

    def _last_good(self) -> str:
        self._writer.wait()
        last = self._model_dir.checkpoints.latest()
        return f"The last good checkpoint is {last}." if last else "No checkpoint was written."

    def _restore(self) -> int | None:
        """Restores the newest checkpoint that is whole; returns its step, or None."""
        step = self._step_to_restore()
        path = self._model_dir.checkpoints.path(step) if step is not None else None
        if path is None or not tf.io.gfile.exists(f"{path}.index"):
            return None
        status = None
        try:
            status = self._checkpoint.restore(path)
            status.assert_consumed()
        except RESTORE_ERRORS as error:
            if status is not None:
                status.expect_partial()
            raise ValueError(
                f"cannot go on from {path}: {first_line(error)}. The file is whole, but of "
                "another optimizer or model. If the optimizer was changed, or RunConfig.ema or "
                "bad_steps set or taken away, start over in a new --model_dir"
            ) from error
        if int(self._seed.numpy()) != self._config.seed:
            print(
                f"RunConfig.seed was {int(self._seed.numpy())} when this run began; now "
                f"{self._config.seed}: it goes on with other randomness"
            )
            self._seed.assign(self._config.seed)
        return step

    def _step_to_restore(self) -> int | None:
        """Step of the newest whole checkpoint as the chief finds it; damaged ones are set aside.

        Raises:
          ValueError: if there are checkpoints and all are damaged.
        """
        files = self._model_dir.checkpoints
        step, problems = files.recover() if self._model_dir.chief else (None, [])
        # What the others get told: a step, -1 for none, -2 for none that is whole.
        found = step if step is not None else -2 if problems else -1
        if num_workers(self._strategy) > 1:
            found = self._told_by_chief(found)
        if found == -2:
            what = f": {'; '.join(problems)}" if problems else ""
            raise ValueError(
                f"no checkpoint in {files.folder} can be read{what}. Bring one back from a copy, "
                "or delete that folder to start over"
            )
        if problems:
            print(
                f"damaged checkpoints: {'; '.join(problems)}. They were moved to "
                f"{os.path.join(files.folder, 'damaged')}; the run goes on from step {step}",
                flush=True,
            )
        return found if found >= 0 else None

    def _told_by_chief(self, number: int) -> int:
        own = tf.constant([number, 1] if self._model_dir.chief else [0, 0], tf.int64)
        total, replicas = sum_over_replicas(self._strategy, own).numpy()
        return int(total // replicas)

    def _check_workers_agree(self) -> None:
        """All workers must have restored the same step, which takes a folder that all see."""
        replicas = self._strategy.num_replicas_in_sync
        if num_workers(self._strategy) > 1:
            total = sum_over_replicas(self._strategy, tf.constant(self.step, tf.int64))
            if int(total) != self.step * replicas:
                raise ValueError(
                    f"this worker stands at step {self.step} and another one elsewhere; all "
                    f"workers need the same model_dir on shared storage ({self._model_dir.path})"
                )

    def _is_for_good(self, step: int) -> bool:
        """Whether a checkpoint is the first at or after a multiple of `RunConfig.keep_every`."""
        every, interval = self._keep_every, self._every_checkpoint
        return bool(every) and step % interval == 0 and step % every < interval

    def _missing(self, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
        """What was due when the run was stopped, after a checkpoint, and was not done."""
        rows = self.log.rows()
        due = [each for each in evaluations if each.is_due(self.step, self.total_steps)]
        missing = [not evaluation.is_logged(rows, self.step) for evaluation in due]
        if due and num_workers(self._strategy) > 1:
            # All evaluate or none: they would wait for each other.
            total = sum_over_replicas(self._strategy, tf.constant(missing, tf.float32))
            missing = (total.numpy() > 0).tolist()
        return [each for each, is_missing in zip(due, missing, strict=True) if is_missing]
