"""What a run says about itself before it starts."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from vit_tf.analysis.flops import count_flops
from vit_tf.models.base import is_statistic
from vit_tf.training.strategies import num_workers
from vit_tf.training.tasks import Task


def start_report(
    task: Task,
    model: keras.Model,
    strategy: tf.distribute.Strategy,
    precision: str,
    train_input: Any,
    global_batch: int,
    total_steps: int,
    start_step: int,
    model_dir: str,
) -> str:
    """The lines that tell what is about to happen.

    Args:
      task: what is learned.
      model: built model.
      strategy: where it runs.
      precision: Keras dtype policy.
      train_input: the training input.
      global_batch: examples a step.
      total_steps: length of the run.
      start_step: steps done already.
      model_dir: where the state lies.

    Returns:
      Several lines, a subject each.
    """
    replicas = strategy.num_replicas_in_sync
    epoch = getattr(train_input, "examples_per_epoch", None)
    rows = [
        ("model", f"{describe(model)}, {parameters(model, count)}, {_flops(model)}"),
        ("devices", f"{replicas} x {_device(strategy)}, {type(strategy).__name__}, {precision}"),
        ("batch", f"{global_batch} = {replicas} replicas x {global_batch // replicas}"),
    ]
    if num_workers(strategy) > 1:
        rows.append(("workers", str(num_workers(strategy))))
    if epoch:
        name = getattr(train_input.source, "name", "")
        rows.append(
            ("data", f"{name}: {epoch:,} examples an epoch, {train_input.num_classes} classes")
        )
        epochs = total_steps * global_batch / epoch
        rows.append(("length", f"{total_steps:,} steps = {epochs:.4g} epochs"))
    else:
        rows.append(("length", f"{total_steps:,} steps"))
    rows += task.facts().items()
    if start_step >= total_steps:
        rows.append(("done", f"all {total_steps:,} steps are done; nothing to train"))
    elif start_step:
        rows.append(("resuming", f"from step {start_step:,}"))
    rows.append(("model_dir", model_dir))
    return "\n".join(f"{name:<10} {text}" for name, text in rows)


def describe(model: keras.Model) -> str:
    """Registered name of a model, or its class, with the image size."""
    name = getattr(model, "variant", None) or type(model).__name__
    preprocessing = getattr(model, "preprocessing", None)
    if preprocessing is None:
        return name
    height, width = preprocessing.image_size
    return f"{name} at {height}x{width}"


def parameters(model: keras.Model, written: Callable[[int], str]) -> str:
    """How many parameters a model has, and how many of them are trained if not all are.

    Args:
      model: built, and its weights frozen that are to be.
      written: how to write a number.
    """
    learnt = [weight for weight in model.weights if not is_statistic(weight)]
    total, trained = (
        sum(weight.shape.num_elements() for weight in weights)
        for weights in (learnt, model.trainable_weights)
    )
    text = f"{written(total).strip()} parameters"
    return text if total == trained else f"{text}, {written(trained).strip()} of them trained"


def _flops(model: keras.Model) -> str:
    return f"{count(count_flops(model))}FLOPs per image (2 x multiply-adds)"


def count(number: float) -> str:
    """A number in three digits and a unit, such as `86.57 M`."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f} "


def _device(strategy: tf.distribute.Strategy) -> str:
    return tf.DeviceSpec.from_string(strategy.extended.worker_devices[0]).device_type
