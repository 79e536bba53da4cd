r"""Classifies images: files, folders and patterns, with an export, a run, a model or a server.

  python tools/predict.py --saved_model=runs/quickstart/export photo.jpg more_photos/ 'x/**/*.png'
  python tools/predict.py --model=vit_b16 --weights=augreg_in21k_ft_in1k \
      --class_names=imagenet.txt photo.jpg
  python tools/predict.py --weights=model.keras photo.jpg
  python tools/predict.py --gin_file=gin/recipes/cifar10.gin --model_dir=runs/cifar10 \
      --checkpoint=best photos/
  python tools/predict.py --server=grpc://localhost:8500 photo.jpg       or http://localhost:8501

Prints a table, or with --format=csv or --format=jsonl what a program reads: file, classes and
probabilities, the likeliest first. --attention=FOLDER writes a PNG an image: what the model saw,
and beside it where it looked (attention rollout; of an export that was asked for it).

Files that cannot be classified are listed at the end on stderr, with exit status 1; the others are
classified. VIT_TF_TRACEBACK=1 in the environment shows where an error was raised.
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors come as exceptions, the rest is noise

import predictor_flags
from absl import app, flags, logging

flags.adopt_module_key_flags(predictor_flags)  # --help shows them too
_FORMAT = flags.DEFINE_enum("format", "table", ["table", "csv", "jsonl"], "what to print")
_TOP_K = flags.DEFINE_integer("top_k", 3, "classes to print for an image", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "images in a batch", lower_bound=1)
_ATTENTION = flags.DEFINE_string("attention", None, "folder for pictures of the attention")

_MANY = 1000  # images whose progress is said even where nobody watches


def main(argv: Sequence[str]) -> None:
    """Prints the classes of the images that the arguments name."""
    if len(argv) < 2:
        raise app.UsageError("name images or folders to classify")
    logging.set_verbosity(logging.WARNING)
    # A reader that has seen enough, such as `head`, ends this program as it ends others.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    import tensorflow as tf

    from vit_tf.export.image_arguments import list_images
    from vit_tf.export.prediction_table import table_lines
    from vit_tf.training.configuration import readable

    images, problems = list_images(argv[1:])
    try:
        for line in table_lines(_rows(_load(), images, problems), _FORMAT.value, _TOP_K.value):
            print(line)
    except (ValueError, TypeError, OSError, RuntimeError, ImportError, tf.errors.OpError) as error:
        if os.environ.get("VIT_TF_TRACEBACK"):
            raise
        problems.append(f"{readable(error)}\n(VIT_TF_TRACEBACK=1 shows where it was raised)")
    sys.stdout.flush()
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


def _load() -> Any:
    """The predictor that the flags name."""
    predictor = predictor_flags.load_predictor_of_flags(_TOP_K.value)
    if getattr(predictor, "folder", None) not in (None, flags.FLAGS.saved_model):
        print(f"{predictor.describe()}, the newest", file=sys.stderr)
    return predictor


def _rows(predictor: Any, images: Sequence[Path], problems: list[str]) -> Iterator[Any]:
    """Classifies, with progress on stderr."""
    from tqdm import tqdm

    from vit_tf.export.classify_files import AttentionWriter, classify_files

    writer = None
    if _ATTENTION.value is not None:
        writer = AttentionWriter(predictor, images, Path(_ATTENTION.value))
    rows = classify_files(predictor, images, _BATCH_SIZE.value, problems, writer)
    # On a terminal the rows themselves are progress.
    watched = sys.stderr.isatty()
    hidden = sys.stdout.isatty() or not (watched or len(images) >= _MANY)
    progress = tqdm(
        rows, total=len(images), unit="image", disable=hidden, mininterval=0.2 if watched else 10
    )
    for number, (file, prediction) in enumerate(progress):
        if not number and len(prediction.names) < _TOP_K.value:
            print(
                f"--top_k={_TOP_K.value}: the model names the {len(prediction.names)} likeliest "
                "classes",
                file=sys.stderr,
            )
        yield file, prediction


if __name__ == "__main__":
    app.run(main)
