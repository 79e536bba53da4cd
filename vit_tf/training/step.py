"""What one replica does in one training step, from its batch to the new weights."""

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from vit_tf.training.gradients import (
    MOST_VALUES,
    Gradients,
    check_accumulation,
    sum_over_replicas,
)
from vit_tf.training.optimization import Optimization
from vit_tf.training.randomness import (
    augmentation_key,
    batch_statistics,
    replica_key,
    step_key,
)
from vit_tf.training.run_config import RunConfig
from vit_tf.training.strategies import is_tpu
from vit_tf.training.tasks import Task


class TrainStep:
    """One optimizer step on a global batch, and the sums of what it saw.

    Args:
      task: what is learned.
      model: the task's model, built in the strategy's scope.
      config: how to train; its `optimization` is built for the model.
      strategy: where to run.
      global_batch: examples a step over all replicas, padding included.

    Raises:
      ValueError: if `RunConfig.accumulation_steps` does not divide a replica's batch.
    """

    def __init__(
        self,
        task: Task,
        model: keras.Model,
        config: RunConfig,
        strategy: tf.distribute.Strategy,
        global_batch: int,
    ):
        replicas = strategy.num_replicas_in_sync
        check_accumulation(config.accumulation_steps, global_batch, replicas)
        self._task = task
        self._model = model
        self._optimization: Optimization = config.optimization
        self._seed = config.seed
        self._strategy = strategy
        self._replicas = replicas
        self._global_batch = global_batch
        self._statistics = batch_statistics(model, config.optimization.frozen)
        self._gradients = Gradients(
            task, model, self._statistics, global_batch, config.accumulation_steps
        )
        self._step_names: list[str] = []
        with strategy.scope():
            # Every replica adds to a vector of its own; reading it adds the replicas' up.
            self.sums = tf.Variable(
                tf.zeros([2 * MOST_VALUES]),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
        # On TPUs all is compiled anyway, and an explicit mark fails (tensorflow/tensorflow
        # #58934). XLA cannot hold the gradients' all-reduce of several CPU or GPU replicas: there
        # only augmentation and forward and backward pass are compiled.
        compiled = config.jit_compile and not is_tpu(strategy)
        self._whole = _jit(self._run) if compiled and replicas == 1 else self._run
        parts = _jit if compiled and replicas > 1 else _same
        self._augmented, self._backward = parts(self._augment), parts(self._gradients)
        self.num_traces = 0

    @property
    def number(self) -> tf.Variable:
        """Number of optimizer steps done."""
        return self._optimization.optimizer.iterations.value

    def __call__(self, batch: Mapping[str, tf.Tensor]) -> None:
        """Trains on a replica's batch, in replica context."""
        self._whole(batch)

    def reset_sums(self) -> None:
        """Begins new means."""
        self.sums.assign(tf.zeros_like(self.sums))

    def means(self) -> dict[str, float]:
        """Means since the sums were reset: the task's values over examples, the rest over steps.

        Examples that were masked out are not in the means; `"skipped_examples"` counts them.
        """
        sums = self.sums.numpy().astype(np.float64)
        values = dict(zip(self._gradients.names, sums[:MOST_VALUES], strict=False))
        by_step = dict(zip(self._step_names, sums[MOST_VALUES:], strict=False))
        examples = values.pop("examples")
        steps = by_step.pop("steps")  # of all replicas
        means = {name: float(total / max(examples, 1.0)) for name, total in values.items()}
        means |= {name: float(total / steps) for name, total in by_step.items()}
        means["skipped_examples"] = int(steps / self._replicas * self._global_batch - examples)
        return means

    @tf.function
    def average_statistics(self) -> None:
        """Gives all replicas the mean of their batch statistics.

        Moving averages are linear in what each step saw, so the mean once a loop is that of every
        step; inside a step that is compiled there could be none.
        """
        values = [variable.value for variable in self._statistics]

        def average():
            replica = tf.distribute.get_replica_context()
            means = replica.all_reduce("MEAN", [tf.identity(value) for value in values])
            for value, mean in zip(values, means, strict=True):
                value.assign(mean)

        if values and self._replicas > 1:
            self._strategy.run(average)

    def _run(self, batch: Mapping[str, tf.Tensor]) -> None:
        self.num_traces += 1  # counts traces: this line runs only while a graph is made
        variables = self._model.trainable_weights
        weights = [tf.convert_to_tensor(variable) for variable in variables]
        statistics = [tf.convert_to_tensor(variable) for variable in self._statistics]
        drawn = step_key(self._seed, self.number)
        batch = self._augmented(batch, drawn, augmentation_key(self._seed, self.number))
        key = replica_key(self._seed, self.number)
        gradients, statistics, sums = self._backward(batch, weights, statistics, key)
        norm = self._optimization.apply(sum_over_replicas(gradients), variables)
        for variable, value in zip(self._statistics, statistics, strict=True):
            variable.assign(value)
        self._add_up(sums, {"steps": tf.constant(1.0), "gradient_norm": norm})

    def _augment(self, batch, drawn: tf.Tensor, key: tf.Tensor) -> Mapping[str, tf.Tensor]:
        batch = {**batch, **self._task.draw(drawn)}
        return self._task.augment(self._model, batch, key)

    def _add_up(self, values: tf.Tensor, by_step: Mapping[str, tf.Tensor]) -> None:
        self._step_names = sorted(by_step)
        vector = tf.stack([by_step[name] for name in self._step_names])
        vector = tf.pad(vector, [[0, MOST_VALUES - len(self._step_names)]])
        self.sums.assign_add(tf.concat([values, vector], 0))


def _jit(function: Callable) -> Callable:
    return tf.function(function, jit_compile=True)


def _same(function: Callable) -> Callable:
    return function
