"""The evaluation loop on Orbit: every example of a split once, any task, any strategy."""

import contextlib
from collections.abc import Callable, Mapping

import keras
import numpy as np
import orbit
import tensorflow as tf

from vit_tf.layers import compiled_by_xla
from vit_tf.training.gradients import masked_sums
from vit_tf.training.strategies import is_tpu
from vit_tf.training.tasks import Task


class EvalLoop(orbit.StandardEvaluator):
    """Means of a task's values over a data set, every example once.

    Args:
      task: what is evaluated.
      model: the task's model.
      strategy: where to run.
      dataset: distributed batches with a `"mask"` of the real examples; those that are not
        `Task.labelled` are left out as well, and counted.
      weights: makes a scope, in replica context, in which the model has the weights that are to be
        evaluated, such as `Averages.in_place_of_weights`. Default: its own.
    """

    def __init__(
        self,
        task: Task,
        model: keras.Model,
        strategy: tf.distribute.Strategy,
        dataset: tf.distribute.DistributedDataset,
        weights: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ):
        super().__init__(eval_dataset=dataset)
        self._task = task
        self._model = model
        self._strategy = strategy
        self._weights = weights

    def eval_begin(self) -> dict[str, float]:
        """The sums of no example."""
        return {}

    def eval_step(self, iterator: tf.data.Iterator) -> dict[str, tf.Tensor]:
        """Sums of one batch's values over all replicas."""
        sums = self._strategy.run(self.replica_sums, args=(next(iterator),))
        return {
            name: self._strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
            for name, value in sums.items()
        }

    def replica_sums(self, batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Sums of the values of a replica's batch, in replica context."""
        mask = batch["mask"] * self._task.labelled(batch)
        with self._weights(), compiled_by_xla(is_tpu(self._strategy)):
            values = self._task.eval_values(self._model, batch)
        sums = masked_sums(values, mask)
        return sums | {"left_out": tf.reduce_sum(batch["mask"] - mask)}

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
