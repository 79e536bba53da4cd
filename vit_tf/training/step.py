"""What one replica does in one training step, from its batch to the new weights."""

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from vit_tf.layers import compiled_by_xla
from vit_tf.training import cpu_kernels
from vit_tf.training.bad_steps import Watch
from vit_tf.training.batch_norms import check_synchronized, prepare_batch_norms
from vit_tf.training.clipping import global_norm
from vit_tf.training.ema import Averages
from vit_tf.training.gradients import (
    MOST_VALUES,
    Gradients,
    check_accumulation,
    sum_over_replicas,
)
from vit_tf.training.group_norms import GroupNorms
from vit_tf.training.randomness import (
    augmentation_key,
    batch_statistics,
    replica_key,
    step_key,
)
from vit_tf.training.run_config import RunConfig
from vit_tf.training.strategies import is_tpu
from vit_tf.training.tasks import Task

_MOST_STEP_VALUES = 256  # two norms a layer group
_MOST_IMAGES = 16
_SAM_EPSILON = 1e-12  # keeps a gradient of zero from being divided by zero


class TrainStep:
    """One optimizer step on a global batch, and the sums of what it saw.

    Args:
      task: what is learned.
      model: the task's model, built in the strategy's scope.
      config: how to train; its `optimization` is built for the model.
      strategy: where to run.
      global_batch: examples a step over all replicas, padding included.

    Attributes:
      averages: of the weights, or None.
      watch: over bad steps, or None.
      sums: what `means` is made from; part of the state of a run that stops within a loop.

    Raises:
      ValueError: if `RunConfig.accumulation_steps` does not divide a replica's batch, the weights
        cannot be averaged, or batch norms cannot be synchronized as asked for.
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
        self._optimization = config.optimization
        self._seed = config.seed
        self._all_reduce_dtype = config.all_reduce_dtype
        self._strategy = strategy
        self._replicas = replicas
        self._global_batch = global_batch
        frozen = config.optimization.frozen
        self._statistics = batch_statistics(model, frozen)
        self._kernels = cpu_kernels.for_step(strategy, compiled=config.jit_compile)
        synchronized = prepare_batch_norms(model, config.sync_batch_norm and replicas > 1)
        on_tpu = is_tpu(strategy)
        if synchronized and not on_tpu:
            check_synchronized(config.jit_compile, task.forms)
        self._gradients = Gradients(
            task,
            model,
            self._statistics,
            global_batch,
            config.accumulation_steps,
            config.remat,
            self._kernels,
            unrolled=synchronized and not on_tpu,
        )
        self._norms = GroupNorms(model.trainable_weights)
        self.averages = config.ema and Averages(config.ema, model, strategy, frozen)
        self.watch = config.bad_steps and Watch(config.bad_steps, strategy)
        self._images: tf.Variable | None = None
        self._step_names: list[str] = []
        with strategy.scope():
            # Every replica adds to a vector of its own; reading it adds the replicas' up.
            self.sums = tf.Variable(
                tf.zeros([MOST_VALUES + _MOST_STEP_VALUES]),
                trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.SUM,
            )
        # On TPUs all is compiled anyway, and an explicit mark fails (tensorflow/tensorflow
        # #58934). XLA cannot hold the gradients' all-reduce of several CPU or GPU replicas: there
        # only augmentation and forward and backward pass are compiled.
        compiled = config.jit_compile and not on_tpu
        self._in_xla, self._on_tpu = config.jit_compile or on_tpu, on_tpu
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
        # Between several workers TensorFlow forgets how large a batch is.
        share = self._global_batch // self._replicas
        with compiled_by_xla(self._in_xla, for_tpu=self._on_tpu):
            self._whole({n: tf.ensure_shape(v, [share, *v.shape[1:]]) for n, v in batch.items()})

    def keep_images(self, shape: Sequence[int]) -> None:
        """Makes steps keep their first images as the model sees them, for the log.

        Args:
          shape: of an image, or of a smaller one to keep.
        """
        shape = [min(_MOST_IMAGES, self._global_batch // self._replicas), *shape]
        with self._strategy.scope():
            self._images = tf.Variable(tf.zeros(shape), trainable=False)

    @property
    def images(self) -> tf.Tensor | None:
        """The first images of the last step, float32 [images, height, width, channels]."""
        return None if self._images is None else tf.convert_to_tensor(self._images)

    def reset_sums(self) -> None:
        """Begins new means."""
        self.sums.assign(tf.zeros_like(self.sums))

    def means(self) -> dict[str, float]:
        """Means since the sums were reset: the task's values over examples, the rest over steps.

        Examples that were masked out are not in the means; `"skipped_examples"` counts them.
        `"bad_steps"` counts what `RunConfig.bad_steps` found; skipped ones are in no mean, and
        where all were skipped the means are NaN.
        """
        sums = self.sums.numpy().astype(np.float64)
        values = dict(zip(self._gradients.names, sums[:MOST_VALUES], strict=False))
        by_step = dict(zip(self._step_names, sums[MOST_VALUES:], strict=False))
        bad_steps = by_step.pop("bad_steps", 0.0) / self._replicas
        examples = values.pop("examples")
        steps = by_step.pop("steps")  # of all replicas
        examples_or_none = max(examples, 1.0) if steps else np.nan
        means = {name: float(total / examples_or_none) for name, total in values.items()}
        means |= {name: float(total / (steps or np.nan)) for name, total in by_step.items()}
        means["skipped_examples"] = int(steps / self._replicas * self._global_batch - examples)
        return means | ({"bad_steps": int(bad_steps)} if self.watch else {})

    @tf.function
    def average_statistics(self) -> None:
        """Gives all replicas the mean of their batch statistics.

        Moving averages are linear in what each step saw, so the mean once a loop is that of every
        step; inside a step that is compiled there could be none.
        """
        variables = [variable.value for variable in self._statistics]
        variables += self.averages.of_statistics if self.averages else []

        def average():
            replica = tf.distribute.get_replica_context()
            means = replica.all_reduce("MEAN", [tf.identity(value) for value in variables])
            for variable, mean in zip(variables, means, strict=True):
                variable.assign(mean)

        if variables and self._replicas > 1:
            self._strategy.run(average)

    def _run(self, batch: Mapping[str, tf.Tensor]) -> None:
        self.num_traces += 1  # counts traces: this line runs only while a graph is made
        variables = self._model.trainable_weights
        weights = [tf.convert_to_tensor(variable) for variable in variables]
        statistics = [tf.convert_to_tensor(variable) for variable in self._statistics]
        drawn = step_key(self._seed, self.number)
        batch = self._augmented(batch, drawn, augmentation_key(self._seed, self.number))
        self._picture(batch["image"])
        key = replica_key(self._seed, self.number)
        gradients, new_statistics, sums = self._backward(batch, weights, statistics, key)
        gradients = sum_over_replicas(gradients, self._all_reduce_dtype)
        if self._optimization.sam_rho:
            begun = self._optimization.only_begun(gradients, variables)
            sharpest = _ascended(weights, begun, self._optimization.sam_rho)
            gradients, _, _ = self._backward(batch, sharpest, statistics, key)
            gradients = sum_over_replicas(gradients, self._all_reduce_dtype)

        state = self._state() if self.watch and self.watch.skips else []
        before = [tf.identity(variable) for variable in state]
        norm = self._optimization.apply(gradients, variables, self._kernels)
        by_step = {"steps": tf.constant(1.0), "gradient_norm": norm}
        by_step |= self._norms("gradient_norm", gradients)
        good = tf.constant(True)
        if self.watch:
            good = self.watch.judge(self._loss(sums), norm)
        for variable, value in zip(state, before, strict=True):
            variable.assign(tf.where(good, variable, value))
        changes = [v.value - w for v, w in zip(variables, weights, strict=True)]
        by_step |= self._norms("update_norm", changes)
        for variable, value, old in zip(self._statistics, new_statistics, statistics, strict=True):
            variable.assign(tf.where(good, value, old) if state else value)
        if self.averages:
            self.averages.update(self.number, good if state else True)
        if state:  # `where`, because NaN times 0 is NaN
            sums = tf.where(good, sums, 0.0)
            by_step = {name: tf.where(good, value, 0.0) for name, value in by_step.items()}
        if self.watch:
            by_step["bad_steps"] = tf.where(good, 0.0, 1.0)
        self._add_up(sums, by_step)

    def _augment(self, batch, drawn: tf.Tensor, key: tf.Tensor) -> Mapping[str, tf.Tensor]:
        batch = {**batch, **self._task.draw(drawn)}
        return self._task.augment(self._model, batch, key)

    def _picture(self, images: tf.Tensor) -> None:
        if self._images is None:
            return
        count, *size, _ = self._images.shape
        images = images[:count]
        if list(images.shape[1:3]) != size:
            images = tf.image.resize(images, size)
        self._images.assign(tf.cast(images, tf.float32))

    def _loss(self, sums: tf.Tensor) -> tf.Tensor:
        """The step's loss, summed over all replicas so that they judge alike."""
        loss = sums[self._gradients.names.index("loss")]
        return sum_over_replicas([loss])[0]

    def _state(self) -> list[tf.Variable]:
        """What a step changes by its gradient: weights and the optimizer's moments."""
        optimizer = self._optimization.optimizer
        slots = [
            variable
            for variable in optimizer.variables
            if variable is not optimizer.iterations and not variable.path.endswith("learning_rate")
        ]
        return [variable.value for variable in [*self._model.trainable_weights, *slots]]

    def _add_up(self, values: tf.Tensor, by_step: Mapping[str, tf.Tensor]) -> None:
        self._step_names = sorted(by_step)
        vector = tf.stack([by_step[name] for name in self._step_names])
        vector = tf.pad(vector, [[0, _MOST_STEP_VALUES - len(self._step_names)]])
        self.sums.assign_add(tf.concat([values, vector], 0))


def _ascended(
    weights: Sequence[tf.Tensor], gradients: Sequence[tf.Tensor], rho: float
) -> list[tf.Tensor]:
    """The weights where, within a radius rho, the loss is largest to first order.

    Sharpness-aware minimisation (Foret et al. 2021, eq. 2) descends by the gradient of there. With
    the gradient of the whole batch, not of a replica's or a micro-batch's share as in the paper's
    m-sharpness, the result does not depend on how a batch is divided.
    """
    scale = rho / (global_norm(gradients) + _SAM_EPSILON)
    return [
        weight + tf.cast(scale, weight.dtype) * tf.cast(gradient, weight.dtype)
        for weight, gradient in zip(weights, gradients, strict=True)
    ]


def _jit(function: Callable) -> Callable:
    return tf.function(function, jit_compile=True)


def _same(function: Callable) -> Callable:
    return function
