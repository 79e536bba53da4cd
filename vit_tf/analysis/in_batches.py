"""Small summaries of large intermediate tensors, computed a batch of images at a time."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

Progress = Callable[[range], Iterable[int]]


def in_batches(
    summarize: Callable[[Any], Mapping[str, Any]],
    images: np.ndarray,
    batch_size: int = 8,
    progress: Progress = iter,
) -> dict[str, np.ndarray]:
    """Summarises images batch by batch, so that no more than one batch's tensors are in memory.

    The function runs as a graph: what it does not return, such as the attention of a layer of which
    only a mean is wanted, is freed as soon as it was used.

    Args:
      summarize: images [batch, ...] -> tensors by name, each with a row an image. It is traced
        once: the last batch is filled up, and what it was filled with is left out of the result.
      images: [images, ...], one at least.
      batch_size: images at a time.
      progress: is given the batches' first images and yields them, as `tqdm` does.

    Returns:
      The tensors by name, all images' rows one after another.

    Raises:
      ValueError: there is no image, or `batch_size` is less than 1.
    """
    if not len(images) or batch_size < 1:
        raise ValueError(
            f"one image and a batch size of 1 are the least; given {len(images)} images and "
            f"batch_size={batch_size}"
        )
    batch_size = min(batch_size, len(images))
    compute = tf.function(summarize)
    parts = []
    for first in progress(range(0, len(images), batch_size)):
        batch = np.asarray(images[first : first + batch_size])
        missing = batch_size - len(batch)
        filled = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
        outputs = compute(tf.constant(filled))
        parts.append({name: rows.numpy()[: len(batch)] for name, rows in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
