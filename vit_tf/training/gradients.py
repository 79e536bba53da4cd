"""Gradients of one replica's share of a global batch, whole or in micro-batches."""

import functools
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from vit_tf.layers.kernels import Kernels, use
from vit_tf.training.randomness import fold_in, seeded
from vit_tf.training.remat import Remat
from vit_tf.training.tasks import Task

MOST_VALUES = 64  # room for the values of any task

# Gradients, new batch statistics, and sums of the task's values in a vector [MOST_VALUES].
Result = tuple[list[tf.Tensor], list[tf.Tensor], tf.Tensor]


class Gradients:
    """A pure function from weights and a batch to gradients: it reads and changes no weight.

    The loss is the sum of the examples' losses over the global batch size. Such gradients add up
    to those of the whole batch, over micro-batches as over replicas. What layers compute from a
    batch as a whole (batch normalisation) they compute from each micro-batch.

    Args:
      task: what is learned.
      model: the task's model.
      statistics: its `batch_statistics`.
      global_batch: examples a step over all replicas, padding included.
      accumulation_steps: micro-batches that a batch is split into, one after the other on the
        device, so that the memory is that of one of them.
      remat: which layers compute their activations again, see `Remat`.
      kernels: what layers compute with, see `layers.kernels`; None: as they are written.
      unrolled: writes the micro-batches out one after the other, not as a loop: in a loop replicas
        on CPUs and GPUs cannot exchange what batch norms see.
    """

    def __init__(
        self,
        task: Task,
        model: keras.Model,
        statistics: Sequence[keras.Variable],
        global_batch: int,
        accumulation_steps: int,
        remat: str = "none",
        kernels: Kernels | None = None,
        unrolled: bool = False,
    ):
        self._task = task
        self._model = model
        self._global_batch = global_batch
        self._accumulation_steps = accumulation_steps
        self._remat = Remat(model, remat)
        self._kernels = kernels
        self._unrolled = unrolled
        self._statistics = statistics
        self.names: list[str] = []  # of the sums; known once the function is traced

    def __call__(
        self,
        batch: Mapping[str, tf.Tensor],
        weights: Sequence[tf.Tensor],
        statistics: Sequence[tf.Tensor],
        key: tf.Tensor,
    ) -> Result:
        """Runs forward and backward pass.

        Args:
          batch: the replica's, augmented; entries of rank 0 go to each micro-batch as they are,
            the others are split along their first axis.
          weights: values of the model's trainable weights.
          statistics: values of the batch statistics.
          key: int32 [2], the seed of dropout and stochastic depth.
        """
        if self._accumulation_steps == 1:
            return self._micro_batch(batch, weights, statistics, key)
        count = self._accumulation_steps
        parts = {
            name: tf.reshape(value, [count, value.shape[0] // count, *value.shape[1:]])
            for name, value in batch.items()
            if value.shape.rank
        }

        def add(number, gradients, statistics, sums):
            part = {name: tf.gather(value, number) for name, value in parts.items()}
            more, statistics, more_sums = self._micro_batch(
                {**batch, **part}, weights, statistics, fold_in(key, number)
            )
            gradients = [a + tf.cast(b, a.dtype) for a, b in zip(gradients, more, strict=True)]
            return number + 1, gradients, statistics, sums + more_sums

        nothing = [tf.zeros(weight.shape, tf.float32) for weight in weights]
        state = (tf.constant(0), nothing, list(statistics), tf.zeros([MOST_VALUES]))
        if self._unrolled:
            for _ in range(count):
                with tf.control_dependencies(state[1]):  # so that one is in memory at a time
                    state = add(*state)
        else:
            state = tf.while_loop(
                lambda number, *_: number < count, add, state, maximum_iterations=count
            )
        _, gradients, statistics, sums = state
        gradients = [tf.cast(g, w.dtype) for g, w in zip(gradients, weights, strict=True)]
        return gradients, statistics, sums

    def _micro_batch(self, batch, weights, statistics, key) -> Result:
        if self._task.forms == 1:
            return self._in_one_form(batch, weights, statistics, key)
        # Forward and backward pass lie in one branch: XLA takes many times as long to compile the
        # gradient of a switch as it does to compile a switch of gradients.
        branches = [
            functools.partial(self._in_one_form, {**batch, "form": form}, weights, statistics, key)
            for form in range(self._task.forms)
        ]
        return tf.switch_case(batch["form"], branches)

    def _in_one_form(self, batch, weights, statistics, key) -> Result:
        variables = [*self._model.trainable_weights, *self._statistics]
        scope = seeded(self._model, key, zip(variables, [*weights, *statistics], strict=True))
        with use(self._kernels):  # the backward pass too: there `Remat` runs layers again
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(weights)
                with scope, self._remat.active(scope):
                    values = self._task.train_values(self._model, batch)
                sums = masked_sums(values, batch["mask"])
                loss = sums["loss"] / self._global_batch
            gradients = tape.gradient(loss, weights, unconnected_gradients="zero")
        statistics = [scope.get_current_value(variable) for variable in self._statistics]
        self.names = sorted(sums)
        vector = tf.stack([sums[name] for name in self.names])
        vector = tf.pad(vector, [[0, MOST_VALUES - len(self.names)]])
        return [tf.convert_to_tensor(gradient) for gradient in gradients], statistics, vector


def sum_over_replicas(gradients: Sequence[tf.Tensor], dtype: str | None = None) -> list[tf.Tensor]:
    """Sums each gradient over all replicas, in replica context.

    Args:
      gradients: of this replica.
      dtype: that they are summed in, and sent between devices and machines. Default: their own.

    Returns:
      The sums, of the gradients' own types; the gradients as they are if there is one replica.
    """
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1:
        return list(gradients)
    sent = [tf.cast(gradient, dtype or gradient.dtype) for gradient in gradients]
    sums = list(sent)
    # TensorFlow sends the tensors of a call as one, which takes one type: one call a type.
    for one in {tensor.dtype: None for tensor in sent}:
        places = [place for place, tensor in enumerate(sent) if tensor.dtype == one]
        totals = context.all_reduce(tf.distribute.ReduceOp.SUM, [sent[p] for p in places])
        for place, total in zip(places, totals, strict=True):
            sums[place] = total
    return [tf.cast(total, own.dtype) for total, own in zip(sums, gradients, strict=True)]


def check_accumulation(accumulation_steps: int, global_batch: int, replicas: int) -> None:
    """Raises a ValueError if a replica's batch cannot be split into equal micro-batches."""
    share = global_batch // replicas
    if share % accumulation_steps:
        of = f" ({global_batch} over {replicas} replicas)" if replicas > 1 else ""
        divisors = ", ".join(str(n) for n in range(1, share + 1) if share % n == 0)
        raise ValueError(
            f"RunConfig.accumulation_steps {accumulation_steps} does not divide a replica's batch "
            f"of {share} examples{of}; take one of {divisors}, or another Input.batch_size"
        )


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
