r"""Classifies images with an exported SavedModel.

  python tools/predict.py --saved_model=runs/quickstart/export photo.jpg more_photos/

Arguments are images (JPEG, PNG, ...) and folders of them. Prints a table, or with --format=csv or
--format=jsonl what a program reads: file, classes and probabilities, the likeliest first. Files
that cannot be classified are listed at the end on stderr, with exit status 1; the others are
classified.
"""

import csv
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags

_SAVED_MODEL = flags.DEFINE_string(
    "saved_model",
    None,
    "folder of the SavedModel, or of numbered ones, of which the newest is taken",
    required=True,
)
_FORMAT = flags.DEFINE_enum("format", "table", ["table", "csv", "jsonl"], "what to print")
_TOP_K = flags.DEFINE_integer("top_k", 3, "classes to print for an image", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "images in a batch", lower_bound=1)

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")

Row = tuple[Path, list[tuple[str, float]]]


def list_images(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Returns the files that arguments name, folders in sorted order, and what is not there."""
    images: list[Path] = []
    problems: list[str] = []
    for argument in map(Path, arguments):
        if argument.is_dir():
            found = sorted(p for p in argument.rglob("*") if p.suffix.lower() in _SUFFIXES)
            images.extend(found)
            if not found:
                problems.append(f"no image ({', '.join(_SUFFIXES)}) in {argument}")
        elif argument.exists():
            images.append(argument)
        else:
            problems.append(f"no such file or folder: {argument}")
    return images, problems


def classify(
    signature: Callable[..., dict[str, Any]],
    images: Sequence[Path],
    batch_size: int,
    problems: list[str],
) -> Iterator[Row]:
    """Yields each image with its classes and probabilities, the likeliest first.

    Args:
      signature: `serving_default` of the SavedModel.
      images: files to classify.
      batch_size: how many at a time.
      problems: gets a sentence for each file that cannot be classified.
    """
    for first in range(0, len(images), batch_size):
        batch = []
        for image in images[first : first + batch_size]:
            try:
                batch.append((image, image.read_bytes()))
            except OSError as error:
                problems.append(f"{image} cannot be read: {error.strerror}")
        yield from _classify_batch(signature, batch, problems)


def _classify_batch(
    signature: Callable[..., dict[str, Any]],
    batch: Sequence[tuple[Path, bytes]],
    problems: list[str],
) -> Iterator[Row]:
    """Classifies a batch."""
    import tensorflow as tf

    if not batch:
        return
    images, contents = zip(*batch, strict=True)
    outputs = signature(image_bytes=tf.constant(contents))
    rows = (outputs[name].numpy() for name in ("top_names", "top_probabilities", "error"))
    for image, row_names, row_values, error in zip(images, *rows, strict=True):
        if error:
            problems.append(f"{image}: {error.decode()}")
            continue
        pairs = zip(row_names, row_values, strict=True)
        yield image, [(name.decode(), float(value)) for name, value in pairs]


def main(argv: Sequence[str]) -> None:
    """Prints the classes of the images that the arguments name."""
    if len(argv) < 2:
        raise app.UsageError("name images or folders to classify")
    # A reader that has seen enough, such as `head`, ends this program as it ends others.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    images, problems = list_images(argv[1:])
    try:
        signature = _load(_SAVED_MODEL.value)
        named = signature.structured_outputs["top_names"].shape[-1]
        if _TOP_K.value > named:
            print(
                f"--top_k={_TOP_K.value}: the SavedModel names the {named} likeliest classes",
                file=sys.stderr,
            )
        rows = classify(signature, images, _BATCH_SIZE.value, problems)
        _print(rows, top_k=min(named, _TOP_K.value))
    except (ValueError, OSError) as error:
        problems.append(str(error))
    sys.stdout.flush()
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


def _load(folder: str) -> Callable[..., dict[str, Any]]:
    import tensorflow as tf

    from vit_tf.export.saved_model_folder import find_saved_model

    saved_model = find_saved_model(folder)
    if saved_model != folder:
        print(f"SavedModel: {saved_model}, the newest", file=sys.stderr)
    return tf.saved_model.load(saved_model).signatures["serving_default"]


def _print(rows: Iterator[Row], top_k: int) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if _FORMAT.value == "csv":
        places = range(1, top_k + 1)
        columns = (f"{name}_{place}" for place in places for name in ("class", "probability"))
        writer.writerow(["file", *columns])
    for image, classes in rows:
        classes = classes[:top_k]
        if _FORMAT.value == "jsonl":
            print(json.dumps({"file": str(image), "classes": classes}))
        elif _FORMAT.value == "csv":
            writer.writerow([image, *(f"{part}" for pair in classes for part in pair)])
        else:
            said = "   ".join(f"{name} {100 * value:5.1f} %" for name, value in classes)
            print(f"{image!s:<40} {said}")


if __name__ == "__main__":
    app.run(main)
