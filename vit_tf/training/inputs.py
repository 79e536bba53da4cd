"""What the loops expect of an input: a `vit_tf.data.Input`, or a plain function of the user's."""

import contextlib
import inspect
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from vit_tf.data.input import READ_ERRORS
from vit_tf.training.preemption import sum_over_replicas
from vit_tf.training.strategies import is_chief, num_workers, worker_context

InputFn = Callable[..., tf.data.Dataset]


def make_dataset(
    input_fn: InputFn,
    context: tf.distribute.InputContext | None = None,
    start_step: int = 0,
    job: str | None = None,
) -> tf.data.Dataset:
    """Calls an input function and brings its batches into the loops' form.

    Args:
      input_fn: takes `input_context` and `start_step`, or the first, or nothing; it returns
        batches that are dicts of `"image"`, `"label"` and optionally `"mask"`, or pairs.
      context: which share of the data is asked for.
      start_step: batches that an earlier part of the run has seen. A function that does not take
        it has them skipped.
      job: a name that all processes share and no earlier start had, for a function that takes it.

    Returns:
      Batches as dicts with a float32 `"mask"`.

    Raises:
      TypeError: if the function returns something else than a data set.
    """
    parameters = inspect.signature(input_fn).parameters
    knows_start = "start_step" in parameters
    offered = {"input_context": context, "start_step": start_step, "job": job}
    if knows_start or "input_context" in parameters:
        dataset = input_fn(**{name: offered[name] for name in offered if name in parameters})
    else:
        dataset = input_fn(*[context] * bool(parameters))
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(f"input_fn must return a tf.data.Dataset; it returned {type(dataset)}")
    if start_step and not knows_start:
        dataset = dataset.skip(start_step)
    element = dataset.element_spec
    if isinstance(element, dict) and "mask" in element:
        return dataset
    return dataset.map(_with_mask)


def _with_mask(*parts: Any) -> dict[str, tf.Tensor]:
    batch = parts[0] if len(parts) == 1 else dict(zip(("image", "label"), parts, strict=True))
    return {**batch, "mask": tf.ones(tf.shape(batch["label"])[:1])}


def global_batch(input_fn: InputFn, strategy: tf.distribute.Strategy) -> int:
    """Examples a step over all replicas, read off the input without running it.

    Raises:
      ValueError: if the batches have no static size.
    """
    declared = getattr(input_fn, "batch_size", None)
    if declared is not None:
        return declared
    size = make_dataset(input_fn, tf.distribute.InputContext()).element_spec["label"].shape[0]
    if size is None:
        raise ValueError(
            "the batches of input_fn have no fixed size; batch with drop_remainder=True"
        )
    return size * strategy.num_replicas_in_sync


def distributed(
    input_fn: InputFn, strategy: tf.distribute.Strategy, start_step: int = 0
) -> tf.distribute.DistributedDataset:
    """The input's batches from `start_step` on, spread over workers and replicas."""
    served = getattr(input_fn, "service", None) is not None
    job = _common_name(strategy) if served and num_workers(strategy) > 1 else None
    return strategy.distribute_datasets_from_function(
        lambda context: make_dataset(input_fn, context, start_step, job)
    )


def _common_name(strategy: tf.distribute.Strategy) -> str:
    """A name that all workers get alike and none ever got before: the chief draws it."""
    drawn = secrets.randbits(24) if is_chief(strategy) else 0  # what a float32 holds exactly
    return f"{float(sum_over_replicas(strategy, tf.constant(float(drawn)))):.0f}"


@contextlib.contextmanager
def named_data_errors(
    input_fn: InputFn,
    strategy: tf.distribute.Strategy,
    position: Callable[[], int] = lambda: 0,
    num_batches: int | None = None,
) -> Iterator[None]:
    """Turns an error of the input pipeline into one that names file and record.

    Args:
      input_fn: the input; only one with `diagnose` can tell.
      strategy: where it is read, and by which worker.
      position: number of batches that were read without an error.
      num_batches: how many batches from there on may hold the record; all if None.

    Raises:
      ValueError: with the input's diagnosis, or if a training input came to an end.
      RuntimeError: if another worker stopped.
      tf.errors.OpError: the original error if the input finds no fault.
    """
    try:
        yield
    except tf.errors.OutOfRangeError as error:
        raise ValueError(
            "the training data came to an end; let input_fn repeat it (dataset.repeat())"
        ) from error
    except (tf.errors.UnavailableError, tf.errors.AbortedError) as error:
        if num_workers(strategy) == 1:
            raise
        raise RuntimeError(
            "another worker stopped, and this one cannot go on without it; its own output says "
            "why. Start all workers again to go on from the last checkpoint"
        ) from error
    except READ_ERRORS as error:
        diagnose = getattr(input_fn, "diagnose", None)
        if diagnose is None:
            raise
        print("reading failed; looking for the record at fault ...", flush=True)
        examples = num_batches and num_batches * input_fn.batch_size
        diagnosis = diagnose(position(), worker_context(strategy), examples)
        if diagnosis is None:
            raise
        raise ValueError(diagnosis) from error
