r"""Classifies images with an exported SavedModel; needs TensorFlow alone, not vit_tf.

  python tools/predict.py --saved_model=runs/quickstart/export/1 photo.jpg more_photos/

Arguments are images (JPEG, PNG, ...) and folders of them. Prints a table, or with --format=csv or
--format=jsonl what a program reads: file, classes and probabilities, the likeliest first.
"""

import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags

_SAVED_MODEL = flags.DEFINE_string(
    "saved_model", None, "folder of the SavedModel: a numbered export", required=True
)
_FORMAT = flags.DEFINE_enum("format", "table", ["table", "csv", "jsonl"], "what to print")
_TOP_K = flags.DEFINE_integer("top_k", 3, "classes to print for an image", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "images in a batch", lower_bound=1)

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif")


def list_images(arguments: Sequence[str]) -> list[Path]:
    """Files that the arguments name, folders searched through in sorted order.

    Raises:
      FileNotFoundError: if one is not there or holds no image.
    """
    images: list[Path] = []
    for argument in map(Path, arguments):
        if argument.is_dir():
            found = sorted(p for p in argument.rglob("*") if p.suffix.lower() in _SUFFIXES)
            if not found:
                raise FileNotFoundError(f"no image ({', '.join(_SUFFIXES)}) in {argument}")
            images.extend(found)
        elif argument.is_file():
            images.append(argument)
        else:
            raise FileNotFoundError(f"no such file or folder: {argument}")
    return images


def classify(
    saved_model: str, images: Sequence[Path], batch_size: int
) -> Iterator[tuple[Path, list[tuple[str, float]]]]:
    """Yields each image with its classes and probabilities, the likeliest first.

    Raises:
      ValueError: for a file that is no image, naming it.
    """
    import tensorflow as tf

    signature = tf.saved_model.load(saved_model).signatures["serving_default"]
    for first in range(0, len(images), batch_size):
        batch = images[first : first + batch_size]
        contents = [image.read_bytes() for image in batch]
        try:
            outputs = signature(image_bytes=tf.constant(contents))
        except tf.errors.InvalidArgumentError as error:
            raise ValueError(_name_bad_image(signature, batch, contents)) from error
        names, values = outputs["top_names"].numpy(), outputs["top_probabilities"].numpy()
        for image, row_names, row_values in zip(batch, names, values, strict=True):
            pairs = zip(row_names, row_values, strict=True)
            yield image, [(name.decode(), float(value)) for name, value in pairs]


def _name_bad_image(signature, batch: Sequence[Path], contents: Sequence[bytes]) -> str:
    import tensorflow as tf

    for image, content in zip(batch, contents, strict=True):
        try:
            signature(image_bytes=tf.constant([content]))
        except tf.errors.InvalidArgumentError:
            return f"{image} cannot be decoded ({len(content)} bytes): not an image, or damaged"
    return "a batch of images cannot be classified together, though each alone can"


def main(argv: Sequence[str]) -> None:
    """Prints the classes of the images that the arguments name."""
    if len(argv) < 2:
        raise app.UsageError("name images or folders to classify")
    try:
        if not os.path.isfile(os.path.join(_SAVED_MODEL.value, "saved_model.pb")):
            raise FileNotFoundError(
                f"no SavedModel in {_SAVED_MODEL.value}; write one with "
                "python tools/train.py --mode=export"
            )
        _print(classify(_SAVED_MODEL.value, list_images(argv[1:]), _BATCH_SIZE.value))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _print(rows: Iterator[tuple[Path, list[tuple[str, float]]]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for image, classes in rows:
        classes = classes[: _TOP_K.value]
        if _FORMAT.value == "jsonl":
            print(json.dumps({"file": str(image), "classes": classes}))
        elif _FORMAT.value == "csv":
            writer.writerow([image, *(f"{part}" for pair in classes for part in pair)])
        else:
            said = "   ".join(f"{name} {100 * value:5.1f} %" for name, value in classes)
            print(f"{image!s:<40} {said}")


if __name__ == "__main__":
    app.run(main)
