"""Files that say which labels images have: ImageNet-ReaL's, JSON and CSV."""

import csv
import dataclasses
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from vit_tf.data.image_files import list_some
from vit_tf.suggestions import did_you_mean

REAL_FILE_NAME = "ILSVRC2012_val_{:08d}.JPEG"
_CSV_HEADER = ["filename", "label"]


@dataclasses.dataclass(frozen=True)
class LabelFile:
    """What a label file says.

    Attributes:
      labels: an image's labels by its file name, in the file's order.
      multi_label: whether an image may have any number of labels.
    """

    labels: Mapping[str, tuple[int, ...]]
    multi_label: bool


def read_label_file(
    path: str, num_classes: int, class_names: Sequence[str] | None = None
) -> LabelFile:
    """Reads a label file, all of which must be right.

    Args:
      path: `.json`: a list, whose i-th entry (from 1) is for `ILSVRC2012_val_{i:08d}.JPEG`, as in
        ImageNet-ReaL's `real.json`, or an object of entries by file name; an entry is a label or a
        list of labels. `.csv`: a header `filename,label`, then a line an image with its labels,
        separated by spaces. A label is an integer or the name of a class. Entries that are lists,
        or lines with another number of labels than one, make the file multi-label.
      num_classes: labels are in `[0, num_classes)`.
      class_names: one a class.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it cannot be read, or labels are none; the first ones and their number are named.
    """
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        raise FileNotFoundError(f"{path}: no such label file")
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in (".json", ".csv"):
        raise ValueError(f"{path}: a label file is .json or .csv, not {suffix or 'without suffix'}")
    with tf.io.gfile.GFile(path, "rb") as file:
        content = file.read()
    read = _json_entries if suffix == ".json" else _csv_entries
    try:
        entries = read(path, content.decode("utf-8-sig"), class_names or ())
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not {suffix[1:].upper()} in UTF-8: {error}") from error
    if not entries:
        raise ValueError(f"{path} names no file")
    numbers = {name: number for number, name in enumerate(class_names or ())}
    labels, problems = {}, []
    for name, entry in entries.items():
        try:
            given = entry if isinstance(entry, list) else [entry]
            labels[name] = tuple(_number(label, num_classes, numbers) for label in given)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    if problems:
        raise ValueError(
            f"{path}: {len(problems):,} of {len(entries):,} entries are not right:\n"
            f"{list_some(problems)}"
        )
    return LabelFile(labels, any(isinstance(entry, list) for entry in entries.values()))


def _json_entries(path: str, text: str, class_names: Sequence[str]) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _check_unique(path, (name for name, _ in pairs))
        return dict(pairs)

    content = json.loads(text, object_pairs_hook=unique)
    if isinstance(content, list):
        return {REAL_FILE_NAME.format(i): entry for i, entry in enumerate(content, 1)}
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} holds a JSON {type(content).__name__}; a list of lists of labels or an object "
            "of labels by file name is needed"
        )
    return content


def _csv_entries(path: str, text: str, class_names: Sequence[str]) -> dict[str, Any]:
    rows = list(csv.reader(io.StringIO(text, newline="")))
    rows = [(line, row) for line, row in enumerate(rows, 1) if row]
    if not rows or rows[0][1] != _CSV_HEADER:
        found = ",".join(rows[0][1]) if rows else "nothing"
        raise ValueError(f"{path} must begin with the line filename,label; it begins with {found}")
    wrong = [f"line {line}: {','.join(row)}" for line, row in rows[1:] if len(row) != 2]
    if wrong:
        raise ValueError(
            f"{path}: {len(wrong):,} lines do not have two fields (several labels are separated "
            f"by spaces):\n{list_some(wrong)}"
        )
    _check_unique(path, (row[0].strip() for _, row in rows[1:]))
    entries = {row[0].strip(): _csv_labels(row[1].strip(), class_names) for _, row in rows[1:]}
    if all(len(labels) == 1 for labels in entries.values()):
        return {name: labels[0] for name, labels in entries.items()}
    return entries


def _csv_labels(text: str, class_names: Sequence[str]) -> list[int | str]:
    names = [text] if text in class_names else text.split()  # a name may contain spaces
    return [int(name) if re.fullmatch(r"-?[0-9]+", name) else name for name in names]


def _check_unique(path: str, names: Iterable[str]) -> None:
    seen, twice = set(), []
    for name in names:
        if name in seen:
            twice.append(name)
        seen.add(name)
    if twice:
        raise ValueError(
            f"{path} names {len(twice):,} files more than once (give each all of its labels in one "
            f"entry):\n{list_some(twice)}"
        )


def _number(label: Any, num_classes: int, numbers: Mapping[str, int]) -> int:
    """The number of a class that is given by number or name; `ValueError` if there is none."""
    if isinstance(label, str):
        if label in numbers:
            return numbers[label]
        if not numbers:
            raise ValueError(f"{label!r} is a name, but the source has no class names")
        hint = did_you_mean(label, numbers) or " None is like it"
        raise ValueError(f"{label!r} is not among the {len(numbers)} class names.{hint}")
    if isinstance(label, bool) or not isinstance(label, int):
        raise ValueError(f"{json.dumps(label)} is not a label (an integer or a class name)")
    if not 0 <= label < num_classes:
        raise ValueError(f"label {label} is outside 0..{num_classes - 1}")
    return label
