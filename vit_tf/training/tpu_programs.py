"""What a configuration runs on each device of a TPU slice, lowered without TPU, data or weights."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from vit_tf import planning
from vit_tf.compilation import Program, Topology, lower
from vit_tf.export.serving_module import ServingModule
from vit_tf.layers import compiled_by_xla
from vit_tf.training import configuration
from vit_tf.training.ema import Averages
from vit_tf.training.estimator import class_names
from vit_tf.training.eval_loop import EvalLoop
from vit_tf.training.gradients import Gradients
from vit_tf.training.randomness import batch_statistics
from vit_tf.training.report import describe, parameters
from vit_tf.training.run_config import RunConfig
from vit_tf.training.run_length import RunLength
from vit_tf.training.slice_strategy import SliceStrategy
from vit_tf.training.step import TrainStep
from vit_tf.training.tasks import Task
from vit_tf.training.unset_weights import unset_weights

PROGRAMS = ("train", "eval", "predict")
_UNKNOWN_STEPS = 1000  # where nothing says how long a run is; the program is the same


@dataclasses.dataclass(frozen=True)
class DeviceProgram:
    """A program of a configuration.

    Attributes:
      kind: one of `PROGRAMS`.
      program: what a device runs.
      batch: examples that a device sees in a run of the program.
      replicas: devices that run it together.
      model: what is trained, in a few words.
      repeated: the body of the program's loop over micro-batches, if it has one.
      repeats: how often the loop runs it.
    """

    kind: str
    program: Program
    batch: int
    replicas: int
    model: str
    repeated: Program | None = None
    repeats: int = 1


class TPUPrograms:
    """Lowers the programs of a run: its training step, its evaluation step, its SavedModel.

    They are traced from the run's own parts (`TrainStep`, `EvalLoop`, `ServingModule`) as they are
    under `TPUStrategy`: one replica a device, gradients summed over all of them, computing in
    bfloat16 unless `RunConfig.precision` says otherwise. Files that the configuration names may be
    missing, as in a dry run, and weights have no memory.

    Args:
      config: how to train.
      make_task: makes the task.
      topology: the slice.
      make_train_input: makes the training input.
      make_eval_input: makes the evaluation input.
    """

    def __init__(
        self,
        config: RunConfig,
        make_task: Callable[[], Task],
        topology: Topology,
        make_train_input: Callable[[], Any] | None = None,
        make_eval_input: Callable[[], Any] | None = None,
    ):
        self._config = config
        self._make_task = make_task
        self._topology = topology
        self._make_inputs = {"train": make_train_input, "eval": make_eval_input}
        self._inputs: dict[str, Any] = {}

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches of a training step, which divide a device's batch."""
        return self._config.accumulation_steps

    def lower(self, kind: str, batch_per_device: int | None = None) -> DeviceProgram:
        """Lowers a program.

        Args:
          kind: `"train"`, `"eval"`, or `"predict"`: the SavedModel's signature `model`, from
            preprocessed images.
          batch_per_device: examples that a device sees. Default: the input's batch, divided by the
            slice's devices.

        Returns:
          The program.

        Raises:
          ValueError: for what would be an error in the run too, a batch that the devices do not
            divide, an input that is missing and does not say its sizes, and an op that XLA cannot
            compile.
        """
        if kind not in PROGRAMS:
            raise ValueError(f"program must be one of {', '.join(PROGRAMS)}; given {kind!r}")
        with planning.planning(), unset_weights():
            made = self._input("train" if kind == "train" else "eval")
            batch = batch_per_device or self._share(made)
            strategy = SliceStrategy(self._topology.devices)
            with strategy.scope():
                task = self._make_task()
                model = self._build(task)
            make = {"train": self._train, "eval": self._eval, "predict": self._predict}[kind]
            return make(task, model, strategy, made, batch)

    def _input(self, name: str) -> Any:
        """One of the inputs; of the other one where evaluation has none."""
        if name not in self._inputs:
            make = self._make_inputs[name]
            if make is None:
                raise ValueError(
                    f"the configuration names no {name} input: run.{name}_input = @{name}/Input"
                )
            try:
                self._inputs[name] = make()
            except FileNotFoundError as error:
                text = configuration.readable(error).partition("\n")[0]
                raise ValueError(
                    f"{text}\nWithout the {name} data its sizes must be stated: "
                    f"{name}/TFDSSource.expected_examples and expected_classes"
                ) from error
        return self._inputs[name]

    def _share(self, made: Any) -> int:
        devices = self._topology.devices
        share, rest = divmod(made.batch_size, devices)
        if rest or not share:
            raise ValueError(
                f"a batch of {made.batch_size} cannot be divided among the {devices} devices of "
                f"{self._topology.name}; take another slice, or say how many a device takes"
            )
        return share

    def _build(self, task: Task) -> keras.Model:
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self._config.dtype_policy(tpu=True))
        try:
            return task.build_model()
        finally:
            keras.config.set_dtype_policy(before)

    def _train(self, task, model, strategy, made, batch) -> DeviceProgram:
        task.check_input(model, made)
        global_batch = batch * strategy.num_replicas_in_sync
        with strategy.scope():
            task.prepare(model, made)
            self._config.optimization.build(model, self._length(made, global_batch))
            step = TrainStep(task, model, self._config, strategy, global_batch)
        program = _on_device(strategy, step, made.batch_spec(batch), "the training step")
        micro = self._config.accumulation_steps
        repeated = None
        if micro > 1:
            body = _micro_batch(task, model, self._config, global_batch)
            spec = made.batch_spec(batch // micro)
            repeated = _on_device(strategy, body, spec, "a micro-batch of it")
        replicas = strategy.num_replicas_in_sync
        return DeviceProgram("train", program, batch, replicas, _named(model), repeated, micro)

    def _length(self, made: Any, global_batch: int) -> RunLength:
        examples = made.examples_per_epoch
        steps = self._config.total_steps(examples / global_batch, _UNKNOWN_STEPS, examples)
        return RunLength(steps, global_batch, examples)

    def _eval(self, task, model, strategy, made, batch) -> DeviceProgram:
        task.check_input(model, made)
        ema = self._config.ema
        weights = (
            [Averages(ema, model, strategy).in_place_of_weights] if ema and ema.evaluate else []
        )
        loop = EvalLoop(task, model, strategy, made, *weights)
        spec = made.batch_spec(batch)
        program = _on_device(strategy, loop.replica_sums, spec, "the evaluation step")
        return DeviceProgram("eval", program, batch, strategy.num_replicas_in_sync, _named(model))

    def _predict(self, task, model, strategy, made, batch) -> DeviceProgram:
        module = ServingModule(
            model,
            lambda images: task.predict_values(model, images),
            made.preprocess,
            class_names(made, model),
        )
        images = tf.TensorSpec([batch, *made.image_shape])
        program = lower(module.signatures()["model"], images, name="the SavedModel's model")
        return DeviceProgram("predict", program, batch, 1, _named(model))


def configured_programs(topology: Topology) -> TPUPrograms:
    """The programs of the configuration that was parsed, as `tools/train.py` would train it.

    Raises:
      ValueError: if the configuration names no task.
    """
    task = configuration.bound_value("run.task")
    if task is None:
        raise ValueError("the configuration names no task, e.g. run.task = @Classification")
    return TPUPrograms(
        configuration.bound("RunConfig")(),
        task,
        topology,
        configuration.bound_value("run.train_input"),
        configuration.bound_value("run.eval_input"),
    )


def _on_device(
    strategy: SliceStrategy, function: Callable, spec: dict[str, tf.TensorSpec], name: str
) -> Program:
    def replica(batch):
        return strategy.run(function, args=(batch,))

    with strategy.scope():
        return lower(replica, spec, name=name)


def _micro_batch(
    task: Task, model: keras.Model, config: RunConfig, global_batch: int
) -> Callable[[dict[str, tf.Tensor]], Any]:
    """What the loop over micro-batches repeats: the compiler counts what is in a loop once."""
    statistics = batch_statistics(model, config.optimization.frozen)
    gradients = Gradients(task, model, statistics, global_batch, 1, config.remat)

    @compiled_by_xla()
    def body(batch):
        key = tf.zeros([2], tf.int32)
        batch = task.augment(model, {**batch, **task.draw(key)}, key)
        weights = [tf.convert_to_tensor(weight) for weight in model.trainable_weights]
        return gradients(batch, weights, [tf.convert_to_tensor(s) for s in statistics], key)

    return body


def _named(model: keras.Model) -> str:
    return f"{describe(model)}, {parameters(model, '{:,}'.format)}, {model.dtype_policy.name}"
