r"""Shows what is inside models: filters, positions, and where their attention goes, on one page.

  A public model on photos (files, folders or patterns):
    python tools/visualize.py --model=vit_b16 --weights=augreg_in21k_ft_in1k --out=look photos/

  A run of tools/train.py, or what it exported:
    python tools/visualize.py --gin_file=gin/recipes/cifar10.gin --model_dir=runs/cifar10 \
        --checkpoint=best --out=look photos/
    python tools/visualize.py --saved_model=runs/cifar10/export --out=look photos/

  A Keras file:
    python tools/visualize.py --weights=model.keras --out=look photos/

  Several models side by side, such as before and after training; each may be given several times:
    python tools/visualize.py --model=vit_s16 --weights=none --model=vit_s16 \
        --weights=augreg_in21k --out=look photos/

  One picture alone; those of weights need no images:
    python tools/visualize.py --model=vit_b16 --weights=B_16.npz --pictures=position_similarity \
        --out=look

In --out it writes a PNG a picture, and index.html: all of them, each with a text that says what it
shows and how to read it. The page needs no other file, so it can be sent.

--pictures=list names the pictures. Without --pictures all are drawn that models and images allow,
and the page says what was left out and why. Pictures of images show the first --show of them;
distances and the like are means over all, at most --max_images, evenly spread over those named.

A further picture is an entry of `PICTURES` in a file of vit_tf/analysis/model_pictures/: a title,
a text and a function that draws; `table.py` there lists the files.

Files that are no images are listed at the end, with exit status 1; the others are shown.
VIT_TF_TRACEBACK=1 in the environment shows where an error was raised.
"""

import functools
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors come as exceptions, the rest is noise

import model_flags
from absl import app, flags, logging

flags.adopt_module_key_flags(model_flags)  # --help shows them too
_PICTURES = flags.DEFINE_list("pictures", [], "names of pictures, see above [all that can be]")
_SHOW = flags.DEFINE_integer("show", 4, "images that are shown", lower_bound=1)
_MAX_IMAGES = flags.DEFINE_integer(
    "max_images", 128, "images that are used; 128 as in the ViT paper", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "images at a time", lower_bound=1)
_OUT = flags.DEFINE_string("out", None, "folder of the pictures and the page", required=True)


def main(argv: Sequence[str]) -> None:
    """Draws the pictures of the models and images that flags and arguments name."""
    logging.set_verbosity(logging.WARNING)
    import tensorflow as tf

    from vit_tf.training.configuration import readable

    problems: list[str] = []
    try:
        _visualize(argv[1:], problems)
    except KeyboardInterrupt:
        print("interrupted; the page has what was drawn", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (ValueError, TypeError, OSError, RuntimeError, tf.errors.OpError) as error:
        if os.environ.get("VIT_TF_TRACEBACK"):
            raise
        is_op = isinstance(error, tf.errors.OpError)
        text = error.message.partition("\n")[0] if is_op else readable(error)
        problems.append(f"{text}\n(VIT_TF_TRACEBACK=1 shows where it was raised)")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


def _visualize(arguments: Sequence[str], problems: list[str]) -> None:
    import tensorflow as tf

    from vit_tf.analysis.model_pictures import PICTURES, choose_pictures, draw_pictures
    from vit_tf.export.image_arguments import list_images

    if _PICTURES.value == ["list"]:
        for name, picture in PICTURES.items():
            print(f"{name:22} {picture.title}{'' if picture.needs_images else ' (of weights)'}")
        return
    files, missing = list_images(arguments)
    problems += missing
    # What cannot work is said before models are loaded.
    choose_pictures(_PICTURES.value, len(files))
    tf.io.gfile.makedirs(_OUT.value)
    models = model_flags.load_models_of_flags()
    subjects = _subjects(models, _spread(files), problems)
    num_images, drawn_of = len(subjects[0].images), [one.model for one in subjects]
    names = choose_pictures(_PICTURES.value, num_images, drawn_of)
    usual = [name for name, picture in PICTURES.items() if not picture.unusual]
    if without := [name for name in usual if name not in names and not _PICTURES.value]:
        why = "they need more images" if len(subjects[0].images) else "no images are named"
        print(f"left out, as {why}: {', '.join(without)}", file=sys.stderr)
    sections, started = [], time.monotonic()
    for drawn in draw_pictures(subjects, names):
        sections.append(_section(drawn))
        page = _write_page(subjects, sections)  # what is drawn is kept if the rest fails
        if _PICTURES.value and not drawn.figures:
            problems.append(f"{drawn.name}: {' '.join(drawn.notes)}")
        seconds, started = time.monotonic() - started, time.monotonic()
        print(f"{drawn.name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    print(page)


def _spread(files: Sequence[Path]) -> list[Path]:
    """No more than --max_images of the files, evenly spread, as folders are sorted by class."""
    if len(files) <= _MAX_IMAGES.value:
        return list(files)
    print(f"{_MAX_IMAGES.value} of {len(files)} images, evenly spread", file=sys.stderr)
    every = len(files) / _MAX_IMAGES.value
    return [files[int(number * every)] for number in range(_MAX_IMAGES.value)]


def _subjects(models: Sequence[Any], files: Sequence[Path], problems: list[str]) -> list[Any]:
    """The models, each with the images as it sees them; unreadable ones become problems."""
    from vit_tf.export.image_arguments import read_ahead

    contents = [item for batch in read_ahead(files, 64, problems) for item in batch]
    subjects, errors = zip(*(_subject(one, contents) for one in models), strict=True)
    problems += errors[0]  # what one model cannot read, the others cannot
    return list(subjects)


def _subject(one: Any, contents: Sequence[tuple[Path, bytes]]) -> tuple[Any, list[str]]:
    """A model with those images that can be read, and a sentence for each other."""
    import numpy as np
    from tqdm import tqdm

    from vit_tf.analysis.model_pictures import Subject
    from vit_tf.export.predictors import KerasPredictor

    images, seen = np.zeros([0, *one.model.input_shape[1:]], np.float32), []
    titles, problems = [], []
    if contents:
        predictor = KerasPredictor(one.model, one.predict_values, one.preprocess, name=one.name)
        encoded = [content for _, content in contents]
        outputs = predictor.outputs("preprocess", encoded)
        errors = [error.decode() for error in outputs["error"]]
        images = outputs["images"][[not error for error in errors]]
        seen = [view for view in predictor.seen(encoded) if view is not None]
        for (file, _), error in zip(contents, errors, strict=True):
            (problems if error else titles).append(f"{file}: {error}" if error else file.stem)
    subject = Subject(
        one.name,
        one.model,
        images,
        np.array(seen),
        titles,
        shown=_SHOW.value,
        batch_size=_BATCH_SIZE.value,
        progress=functools.partial(
            tqdm, desc=one.name, unit="batch", leave=False, disable=not sys.stderr.isatty()
        ),
    )
    return subject, problems


def _section(drawn: Any) -> Any:
    """Writes a picture's PNGs; returns its part of the page."""
    from vit_tf.analysis.model_pictures import PICTURES
    from vit_tf.analysis.picture_page import Section
    from vit_tf.analysis.png import write_png

    picture, pngs = PICTURES[drawn.name], {}
    for caption, figure in drawn.figures.items():
        file = re.sub(r"[^\w.+-]+", "_", f"{drawn.name} {caption}".strip())
        pngs[caption] = write_png(figure, os.path.join(_OUT.value, f"{file}.png"))
    return Section(drawn.name, picture.title, picture.text, pngs, drawn.notes)


def _write_page(subjects: Sequence[Any], sections: Sequence[Any]) -> str:
    """Writes the page of what is drawn so far; returns its path."""
    from vit_tf.analysis.picture_page import picture_page
    from vit_tf.analysis.whole_file import write_whole

    title = f"Inside {', '.join(subject.name for subject in subjects)}"
    facts = [subject.facts() for subject in subjects]
    command = f"python {shlex.join(sys.argv)}"
    path = os.path.join(_OUT.value, "index.html")
    write_whole(path, picture_page(title, facts, sections, command).encode())
    return path


if __name__ == "__main__":
    app.run(main)
