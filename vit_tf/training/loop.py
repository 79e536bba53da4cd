"""The inner loops on Orbit: many steps in one traced function, any task, any strategy."""

import time
from collections.abc import Callable, Mapping

import keras
import numpy as np
import orbit
import tensorflow as tf

from vit_tf.training.optimization import Optimization
from vit_tf.training.randomness import (
    augmentation_key,
    batch_statistics,
    seeded_step,
    step_key,
)
from vit_tf.training.strategies import is_tpu
from vit_tf.training.tasks import Task

# Orbit prints each of its log lines besides logging it; the progress line stands in their place.
orbit.controller._log = orbit.controller.logging.debug


_MOST_VALUES = 64  # room for the values of any task
_PIECE_SECONDS = 2.0


class TrainLoop(orbit.StandardTrainer):
    """`steps_per_loop` training steps in a `tf.while_loop`, and the means of what they saw.

    The loss of a step is the sum of its examples' losses over the global batch size, so gradients
    summed over replicas equal those of one device with the whole batch.

    Args:
      task: what is learned.
      model: the task's model, built in the strategy's scope.
      optimization: built for the model.
      strategy: where to run.
      global_batch: examples a step over all replicas, padding included.
      seed: of dropout, stochastic depth and the task's augmentation.
      steps_per_loop: the means are of so many steps, counted from the run's very start.
      jit_compile: compiles the step with XLA. On TPUs it is not used: there all is compiled
        anyway, and an explicit mark fails (tensorflow/tensorflow #58934).
    """

    def __init__(
        self,
        task: Task,
        model: keras.Model,
        optimization: Optimization,
        strategy: tf.distribute.Strategy,
        global_batch: int,
        seed: int,
        steps_per_loop: int,
        jit_compile: bool = False,
    ):
        super().__init__(train_dataset=None)
        self._task = task
        self._model = model
        self._optimization = optimization
        self._strategy = strategy
        self._global_batch = global_batch
        self._seed = seed
        self._steps_per_loop = steps_per_loop
        self._piece = 1  # the first call traces and compiles
        # TensorFlow refuses its own clock where operations must be deterministic; a TPU's host may
        # be another machine, which cannot call Python here.
        self._clock = tf.timestamp if is_tpu(strategy) else _python_clock
        jit_compile = jit_compile and not is_tpu(strategy)
        self._names: list[str] = []
        with strategy.scope():
            # Every replica adds to a vector of its own; reading it adds the replicas' up.
            self.sums = tf.Variable(
                tf.zeros([_MOST_VALUES]),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
        self._wait = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        # XLA cannot hold the gradients' all-reduce of several CPU or GPU replicas: there only
        # forward and backward pass are compiled.
        alone = strategy.num_replicas_in_sync == 1
        self._step = _jit(self._replica_step) if jit_compile and alone else self._replica_step
        self._gradients = (
            _jit(self._replica_gradients) if jit_compile and not alone else self._replica_gradients
        )
        self.num_traces = 0
        self.should_stop: Callable[[], bool] = lambda: False

    @property
    def global_step(self) -> tf.Variable:
        """Number of optimizer steps done."""
        return self._optimization.optimizer.iterations.value

    def train_loop_begin(self) -> None:
        """Resets the sums, unless it goes on with a loop that a stop cut in two."""
        if int(self.global_step.numpy()) % self._steps_per_loop == 0:
            self.sums.assign(tf.zeros([_MOST_VALUES]))
        self._wait.assign(0.0)

    def create_train_loop_fn(self) -> Callable[[tf.data.Iterator, tf.Tensor], None]:
        """The loop in pieces of about two seconds, between which it may be asked to stop.

        Python learns of a signal only between calls into TensorFlow.
        """
        run = super().create_train_loop_fn()

        def run_in_pieces(iterator: tf.data.Iterator, num_steps: tf.Tensor) -> None:
            left = int(num_steps)
            while left:
                piece = min(left, self._piece)
                start = time.monotonic()
                run(iterator, tf.constant(piece))
                step_seconds = (time.monotonic() - start) / piece
                left -= piece
                self._piece = max(1, min(2 * self._piece, int(_PIECE_SECONDS / step_seconds)))
                if self.should_stop():  # asked after a piece: a loop without a step has no means
                    break

        return run_in_pieces

    def train_step(self, iterator: tf.data.Iterator) -> None:
        """One step: takes a batch, measuring the wait for it, and updates the weights."""
        before = self._clock()
        with tf.control_dependencies([before]):
            batch = next(iterator)
        arrived = [
            part
            for value in tf.nest.flatten(batch)
            for part in self._strategy.experimental_local_results(value)
        ]
        with tf.control_dependencies(arrived):
            waited = self._clock() - before
        self._wait.assign_add(waited)
        self._strategy.run(self._step, args=(batch,))

    def train_loop_end(self) -> dict[str, float]:
        """Means over the loop: the task's values, gradient norm, seconds waited for input.

        Examples that were masked out are not in the means; `"skipped_examples"` counts them.
        """
        self._average_statistics()
        sums = dict(zip(self._names, self.sums.numpy().astype(np.float64), strict=False))
        steps = sums.pop("steps") / self._strategy.num_replicas_in_sync
        examples = sums.pop("examples")
        norm = sums.pop("gradient_norm") / self._strategy.num_replicas_in_sync / steps
        means = {name: float(total / max(examples, 1.0)) for name, total in sums.items()}
        means["gradient_norm"] = float(norm)
        means["skipped_examples"] = int(steps * self._global_batch - examples)
        means["input_wait_seconds"] = float(self._wait.numpy())
        return means

    @tf.function
    def _average_statistics(self) -> None:
        """Gives all replicas the mean of their batch statistics.

        Moving averages are linear in what each step saw, so the mean once a loop is that of every
        step; inside a step that is compiled there could be none.
        """
        values = [variable.value for variable in batch_statistics(self._model)]

        def average():
            replica = tf.distribute.get_replica_context()
            means = replica.all_reduce("MEAN", [tf.identity(value) for value in values])
            for value, mean in zip(values, means, strict=True):
                value.assign(mean)

        if values and self._strategy.num_replicas_in_sync > 1:
            self._strategy.run(average)

    def _replica_step(self, batch: Mapping[str, tf.Tensor]) -> None:
        self.num_traces += 1  # counts traces: this line runs only while a graph is made
        gradients, sums = self._gradients(batch)
        sums["gradient_norm"] = self._optimization.apply(gradients, self._model.trainable_weights)
        self._names = sorted(sums)
        vector = tf.stack([sums[name] for name in self._names])
        self.sums.assign_add(tf.pad(vector, [[0, _MOST_VALUES - len(self._names)]]))

    def _replica_gradients(self, batch: Mapping[str, tf.Tensor]):
        key = augmentation_key(self._seed, self.global_step)
        batch = {**batch, **self._task.draw(step_key(self._seed, self.global_step))}
        batch = self._task.augment(self._model, batch, key)
        with tf.GradientTape() as tape:
            with seeded_step(self._model, self._seed, self.global_step):
                values = self._task.train_values(self._model, batch)
            sums = masked_sums(values, batch["mask"])
            loss = sums["loss"] / self._global_batch
        sums["steps"] = tf.constant(1.0)
        return tape.gradient(loss, self._model.trainable_weights), sums


class EvalLoop(orbit.StandardEvaluator):
    """Means of a task's values over a data set, every example once.

    Args:
      task: what is evaluated.
      model: the task's model.
      strategy: where to run.
      dataset: distributed batches with a `"mask"` of the real examples; those that are not
        `Task.labelled` are left out as well, and counted.
    """

    def __init__(
        self,
        task: Task,
        model: keras.Model,
        strategy: tf.distribute.Strategy,
        dataset: tf.distribute.DistributedDataset,
    ):
        super().__init__(eval_dataset=dataset)
        self._task = task
        self._model = model
        self._strategy = strategy

    def eval_begin(self) -> dict[str, float]:
        """The sums of no example."""
        return {}

    def eval_step(self, iterator: tf.data.Iterator) -> dict[str, tf.Tensor]:
        """Sums of one batch's values over all replicas."""

        def replica_step(batch):
            mask = batch["mask"] * self._task.labelled(batch)
            sums = masked_sums(self._task.eval_values(self._model, batch), mask)
            return sums | {"left_out": tf.reduce_sum(batch["mask"] - mask)}

        sums = self._strategy.run(replica_step, args=(next(iterator),))
        return {
            name: self._strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
            for name, value in sums.items()
        }

    def eval_reduce(
        self, state: dict[str, float], step_outputs: dict[str, tf.Tensor]
    ) -> dict[str, float]:
        """Adds a batch's sums, in float64 so that large splits stay exact."""
        return {
            name: state.get(name, 0.0) + np.float64(value.numpy())
            for name, value in step_outputs.items()
        }

    def eval_end(self, state: dict[str, float]) -> dict[str, float]:
        """Means of the values, and `"examples"`, how many were counted.

        Where some have no label, `"left_out_examples"` says how many.
        """
        examples, left_out = state.pop("examples", 0.0), int(state.pop("left_out", 0.0))
        if not examples:
            none = f" with a label; {left_out:,} have none" if left_out else ""
            raise ValueError(f"the evaluation data holds no example{none}")
        means = {name: float(total / examples) for name, total in state.items()}
        counts = {"examples": int(examples)}
        return means | counts | ({"left_out_examples": left_out} if left_out else {})


def masked_sums(values: Mapping[str, tf.Tensor], mask: tf.Tensor) -> dict[str, tf.Tensor]:
    """Sums values over the examples whose mask is 1, and counts these as `"examples"`.

    Args:
      values: name -> float32 [batch].
      mask: float32 [batch] of 0 and 1; what a masked example holds, NaN included, is ignored.

    Returns:
      Name -> float32 scalar.
    """
    sums = {
        name: tf.reduce_sum(tf.where(mask > 0, value, tf.zeros_like(value)))
        for name, value in values.items()
    }
    return sums | {"examples": tf.reduce_sum(mask)}


def _python_clock() -> tf.Tensor:
    return tf.ensure_shape(tf.numpy_function(time.monotonic, [], tf.float64), [])


def _jit(function: Callable) -> Callable:
    return tf.function(function, jit_compile=True)
