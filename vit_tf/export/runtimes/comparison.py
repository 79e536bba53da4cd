"""Converted models next to the SavedModel they were made of, on a whole split."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from vit_tf.data.input import Input
from vit_tf.export.runtimes.base import Run
from vit_tf.export.runtimes.conversion import load, read_metadata
from vit_tf.export.runtimes.served_model import ServedModel

# Gives (preprocessed images [b, height, width, channels], labels [b]) anew at each call.
Batches = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A model's size, speed and accuracy, and how far it is from the SavedModel.

    Attributes:
      name: its kind, or `saved_model`.
      megabytes: of its files, 10^6 bytes.
      largest_difference: of a logit from the SavedModel's.
      agreement: share of images of which it finds the same class likeliest.
      accuracy: share of images of which it finds the labelled class likeliest.
      images: how many there were.
      images_per_second: preprocessed images in, logits out.
    """

    name: str
    megabytes: float
    largest_difference: float
    agreement: float
    accuracy: float
    images: int
    images_per_second: float


def compare(
    served: ServedModel,
    converted: Sequence[str],
    batches: Batches,
    num_threads: int | None = None,
) -> Iterator[Comparison]:
    """Runs the SavedModel and what it was converted to on the same images, one after the other.

    Args:
      served: the SavedModel, which computes with TensorFlow's own number of threads.
      converted: folders that `convert` wrote.
      batches: the images, e.g. of `split_batches`.
      num_threads: see `load`.

    Yields:
      A row for the SavedModel, and then one for each folder.
    """
    logits, labels, seconds = _run_all(served, batches)
    likeliest = logits.argmax(axis=1)
    variables = os.path.join(served.folder, "variables")
    size = _size(variables) + os.path.getsize(os.path.join(served.folder, "saved_model.pb"))
    accuracy = float((likeliest == labels).mean())
    count = len(labels)
    yield Comparison("saved_model", size / 1e6, 0.0, 1.0, accuracy, count, count / seconds)
    for path in converted:
        found, _, seconds = _run_all(load(path, num_threads), batches)
        yield Comparison(
            name=str(read_metadata(path)["kind"]),
            megabytes=_size(path) / 1e6,
            largest_difference=float(np.abs(found - logits).max()),
            agreement=float((found.argmax(axis=1) == likeliest).mean()),
            accuracy=float((found.argmax(axis=1) == labels).mean()),
            images=count,
            images_per_second=count / seconds,
        )


def comparison_table(rows: Sequence[Comparison]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| kind | MB | largest difference of a logit | same top-1 | accuracy | images/s |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.name} | {row.megabytes:.2f} | {row.largest_difference:.2g} | "
        f"{100 * row.agreement:.2f} % | {100 * row.accuracy:.2f} % | {row.images_per_second:.0f} |"
        for row in rows
    ]
    return "\n".join(lines)


def split_batches(served: ServedModel, source: object, batch_size: int) -> Batches:
    """Returns the images of a split as the SavedModel preprocesses them, and their labels.

    Args:
      served: the SavedModel.
      source: `vit_tf.data` source of the split.
      batch_size: images at a time.

    Raises:
      ValueError: if the images have several labels each, or other classes than the model.
    """
    check_labels(served, source)
    records = Input(
        source, served.card["preprocess"], batch_size=batch_size, training=False
    ).encoded()
    records = records.batch(batch_size).prefetch(tf.data.AUTOTUNE)

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in records.as_numpy_iterator():
            yield served.preprocess(batch["image"]), batch["label"]

    return batches


def check_labels(served: ServedModel, source: object) -> None:
    """Raises ValueError unless a source's labels are the classes of a SavedModel."""
    classes = served.card["class_names"]
    if source.multi_label:
        raise ValueError(f"{source.name} has several labels an image; accuracy needs one")
    if source.num_classes != len(classes):
        raise ValueError(
            f"{source.name} has {source.num_classes} classes, and the model {len(classes)}: it is "
            "not what the model was trained on"
        )


def _run_all(run: Run, batches: Batches) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns logits and labels of all images, and the seconds that `run` took for them."""
    logits, labels, seconds = [], [], 0.0
    for images, batch_labels in batches():
        if not logits:
            run(images)  # what happens once only is not measured
        start = time.perf_counter()
        logits.append(run(images)["logits"])
        seconds += time.perf_counter() - start
        labels.append(batch_labels)
    return np.concatenate(logits), np.concatenate(labels), seconds


def _size(folder: str) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
