"""What a run would do, found out in seconds: nothing is trained, loaded, downloaded or allocated.

The model and its optimizer are built in a TensorFlow graph that nobody runs, where weights have
shapes and no memory: a ViT-G/14 is planned on a laptop.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vit_tf import planning
from vit_tf.analysis.flops import TRAINING_PASSES, count_flops
from vit_tf.analysis.png import write_png
from vit_tf.analysis.schedule_curve import plot_schedule
from vit_tf.data.worker_streams import Worker
from vit_tf.training import configuration, strategies
from vit_tf.training.evaluations import Evaluator, check_evaluators
from vit_tf.training.gradients import check_accumulation
from vit_tf.training.report import count, describe, parameters
from vit_tf.training.run_config import RunConfig
from vit_tf.training.run_length import RunLength
from vit_tf.training.tasks import Task

_SHOWN_SHARES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_CURVE_POINTS = 240


@dataclasses.dataclass(frozen=True)
class DryRun:
    """What a run would do.

    Attributes:
      rows: subject and text, in the order of the report.
      files: that the configuration names, found or not.
      parameters: of the model, those that are trained.
      flops: of the forward pass for one image.
      memory: bytes on each replica, by what they are for; activations are not counted.
      length: steps, batch and epoch; None if the length of the run is not known.
      rates: learning rate by step, at some steps; empty without a length.
    """

    rows: list[tuple[str, str]]
    files: list[planning.NamedFile]
    parameters: int
    flops: int
    memory: dict[str, int]
    length: RunLength | None
    rates: dict[int, float]

    @property
    def missing(self) -> list[planning.NamedFile]:
        """The files that are not there."""
        return [file for file in self.files if file.problem]

    def __str__(self) -> str:
        lines = [f"{name:<10} {_indented(text)}" for name, text in self.rows]
        for file in self.files:
            status = "MISSING" if file.problem else "found  "
            lines.append(f"{status}    {file.role} {file.name}")
            if file.problem:
                lines.append(f"           {_indented(file.problem)}")
        return "\n".join(lines)


def dry_run(
    config: RunConfig,
    make_task: Callable[[], Task],
    make_train_input: Callable[[], Any] | None = None,
    make_eval_input: Callable[[], Any] | None = None,
    model_dir: str | os.PathLike | None = None,
    make_evaluators: Sequence[Callable[[], Evaluator]] = (),
) -> DryRun:
    """Finds out what a run would do.

    Args:
      config: how to train.
      make_task: makes the task; it is called here, like the inputs.
      make_train_input: makes the training input.
      make_eval_input: makes the evaluation input.
      model_dir: where to draw the schedule, `pictures/schedule.png`; None draws nothing.
      make_evaluators: each makes one of the run's evaluators.

    Returns:
      All that is known. What the data's absence leaves unknown is said.

    Raises:
      ValueError: for what would be an error in the run too, such as a model that does not fit the
        data or a table that does not fit the model.
    """
    strategy, devices = _strategy(config)
    policy = config.dtype_policy(strategies.is_tpu(strategy) or config.strategy == "tpu")
    with planning.planning() as files:
        train_input = _made("training", make_train_input)
        eval_input = _made("evaluation", make_eval_input)
        evaluators = [made for make in make_evaluators if (made := _made("evaluators'", make))]
        with tf.Graph().as_default():
            task = make_task()
            model = _build(task, policy)
            flops = count_flops(model)
            for held in (train_input, eval_input):
                if held is not None:
                    task.check_input(model, held)
            check_evaluators(evaluators, model)
            if train_input is not None:
                task.prepare(model, train_input)
            facts = task.facts()
            length, unknown = _length(config, train_input)
            optimization = config.optimization
            optimizer = length and optimization.build(model, length)
            memory = _memory(config, model, optimizer)
    trained = sum(weight.shape.num_elements() for weight in model.trainable_weights)
    rows = [
        ("model", f"{describe(model)}, {parameters(model, '{:,}'.format)}"),
        ("memory", _memory_text(memory)),
        ("compute", _compute(flops, length)),
        ("devices", f"{devices}, {policy}"),
    ]
    if train_input is not None:
        rows.append(("batch", _batch(config, train_input, strategy)))
    rows += [
        *_data_rows("training", train_input),
        *_data_rows("evaluation", eval_input),
        *[("evaluator", _evaluator_text(evaluator)) for evaluator in evaluators],
        ("length", unknown or _length_text(length)),
    ]
    rates = {}
    if length:
        schedule = optimization.rates
        rates = _rates(schedule, length.steps)
        rows += [("intervals", _intervals(config, length)), *facts.items()]
        rows += [("schedule", _schedule_text(schedule, rates, length))]
        if model_dir:
            rows.append(("picture", _draw(model_dir, rates, length, describe(model))))
        rows.append(("weights", optimization.describe()))
    else:
        rows += facts.items()
    return DryRun(rows, list(files), trained, flops, memory, length, rates)


def _strategy(config: RunConfig) -> tuple[tf.distribute.Strategy | None, str]:
    """Where the run would compute; None if that cannot be seen from here."""
    if config.strategy in ("multi_worker", "tpu"):  # to make one is to wait for the others
        return None, f"{config.strategy}, not asked in a dry run"
    strategy = strategies.create_strategy(config.strategy, config.tpu, config.virtual_cpus)
    replicas = strategy.num_replicas_in_sync
    device = tf.DeviceSpec.from_string(strategy.extended.worker_devices[0]).device_type
    return strategy, f"{replicas} x {device}, {type(strategy).__name__}"


def _made(name: str, make: Callable[[], Any] | None) -> Any:
    """An input; None if its data is missing and nothing states what it would be."""
    if make is None:
        return None
    try:
        return make()
    except FileNotFoundError as error:
        text = configuration.readable(error)
        planning.note("data", f"of the {name} input", text.partition("\n")[0])
        return None


def _build(task: Task, policy: str) -> keras.Model:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return task.build_model()
    finally:
        keras.config.set_dtype_policy(before)


def _length(config: RunConfig, train_input: Any) -> tuple[RunLength | None, str]:
    """Length of the run, or why it is not known."""
    if train_input is None and (config.steps is None or callable(config.steps)):
        return None, (
            "unknown: the data is missing, and nothing states its size (as "
            "TFDSSource.expected_examples and expected_classes do); nor does RunConfig.steps"
        )
    epoch = getattr(train_input, "examples_per_epoch", None)
    per_epoch = getattr(train_input, "steps_per_epoch", None)
    batch = getattr(train_input, "batch_size", None)
    return RunLength(config.total_steps(per_epoch, examples_per_epoch=epoch), batch, epoch), ""


def _memory(config: RunConfig, model: keras.Model, optimizer: Any) -> dict[str, int]:
    trained = model.trainable_weights
    memory = {"weights": _bytes(model.weights), "gradients": _bytes(trained)}
    slots = [v for v in optimizer.variables if len(v.shape)] if optimizer else []
    for dtype in sorted({slot.dtype for slot in slots}):
        memory[f"optimizer in {dtype}"] = _bytes([slot for slot in slots if slot.dtype == dtype])
    if config.ema is not None:
        memory["average of weights"] = _bytes(trained)
    return memory


def _bytes(variables: list) -> int:
    return sum(v.shape.num_elements() * tf.as_dtype(v.dtype).size for v in variables)


def _memory_text(memory: dict[str, int]) -> str:
    parts = ", ".join(f"{name} {_size(number)}" for name, number in memory.items())
    return f"{_size(sum(memory.values()))} a replica without activations: {parts}"


def _size(number: int) -> str:
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"


def _compute(flops: int, length: RunLength | None) -> str:
    text = f"{count(flops)}FLOPs per image (2 x multiply-adds), forward"
    if length is None or length.batch_size is None:
        return text
    total = TRAINING_PASSES * flops * length.batch_size * length.steps
    return f"{text}; {total:.3g} to train ({TRAINING_PASSES} x forward; without teachers)"


def _batch(config: RunConfig, train_input: Any, strategy: tf.distribute.Strategy | None) -> str:
    batch = getattr(train_input, "batch_size", None)
    if batch is None:
        return "as the input makes it"
    if strategy is None:
        return f"{batch:,}, split over the replicas there"
    replicas = strategy.num_replicas_in_sync
    Worker.of(strategies.worker_context(strategy), batch)  # raises unless the replicas divide it
    check_accumulation(config.accumulation_steps, batch, replicas)
    text = f"{batch:,} = {replicas} replicas x {batch // replicas:,}"
    micro = config.accumulation_steps
    return text if micro == 1 else f"{text}, in {micro} micro-batches"


def _data_rows(name: str, made: Any) -> list[tuple[str, str]]:
    if made is None or not hasattr(made, "examples_per_epoch"):
        return []
    source = getattr(made.source, "name", "")
    examples = f"{made.examples_per_epoch:,} examples, {made.num_classes:,} classes"
    return [(name, f"{source}: {examples}, batches of {made.batch_size:,}\n{made.preprocess}")]


def _evaluator_text(evaluator: Evaluator) -> str:
    if evaluator.every is None:
        return f"{evaluator.name}, with each evaluation"
    steps = " steps" if isinstance(evaluator.every, int) else ""
    return f"{evaluator.name}, every {evaluator.every}{steps}"


def _length_text(length: RunLength) -> str:
    text = f"{length.steps:,} steps"
    if length.steps_per_epoch:
        text += f" = {length.steps / length.steps_per_epoch:.4g} epochs"
    if length.batch_size:
        text += f" = {length.steps * length.batch_size:,} examples"
    return text


def _intervals(config: RunConfig, length: RunLength) -> str:
    every_eval, every_checkpoint, loop = config.intervals(length.steps)
    return (
        f"a line every {loop:,} steps, a checkpoint every {every_checkpoint:,}, an evaluation "
        f"every {every_eval:,}"
    )


def _rates(schedule: Callable[[int], Any], steps: int) -> dict[int, float]:
    """Learning rates at some steps, those where something begins or ends among them."""
    chosen = set(np.linspace(0, steps - 1, _CURVE_POINTS).round().astype(int).tolist())
    chosen |= {min(round(share * steps), steps - 1) for share in _SHOWN_SHARES}
    warmup, cooldown = _edges(schedule)
    chosen |= {min(warmup, steps - 1), max(0, min(steps - cooldown, steps - 1))}
    return {step: float(schedule(step)) for step in sorted(chosen)}


def _edges(schedule: Any) -> tuple[int, int]:
    """Steps of warm-up and cool-down, 0 for schedules that do not tell."""
    inner = getattr(schedule, "schedule", schedule)
    return getattr(inner, "warmup", 0), getattr(inner, "cooldown", 0)


def _schedule_text(schedule: Any, rates: dict[int, float], length: RunLength) -> str:
    warmup, cooldown = _edges(schedule)
    peak = max(rates, key=rates.get)
    inner = type(getattr(schedule, "schedule", schedule)).__name__
    parts = [f"{inner}, peak {rates[peak]:.4g} at step {peak:,}"]
    parts += [f"warm-up {warmup:,} steps"] * bool(warmup)
    parts += [f"cool-down {cooldown:,} steps"] * bool(cooldown)
    last = length.steps - 1
    shown = sorted({min(round(share * length.steps), last) for share in _SHOWN_SHARES})
    lines = [f"step {step:>9,}  {step / length.steps:>4.0%}  {rates[step]:.4g}" for step in shown]
    return "\n".join([", ".join(parts), *lines])


def _draw(model_dir: str | os.PathLike, rates: dict, length: RunLength, title: str) -> str:
    figure = plot_schedule(
        list(rates), {"learning rate": list(rates.values())}, length.steps_per_epoch, title
    )
    path = os.path.join(os.path.expanduser(os.fspath(model_dir)), "pictures", "schedule.png")
    write_png(figure, path)
    return path


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 11)
