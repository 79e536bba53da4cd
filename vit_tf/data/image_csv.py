"""Reads a CSV that lists images and their labels."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from vit_tf.data.image_files import ImageCollection, ImageRecord, list_some, unknown_class
from vit_tf.suggestions import did_you_mean


def read_image_csv(
    csv_path: str | Path,
    *,
    path_column: str = "path",
    label_column: str = "label",
    name_column: str | None = None,
    split_column: str | None = None,
    split: str = "train",
    class_names: Sequence[str] | None = None,
) -> ImageCollection:
    """Reads a CSV whose header names the columns.

    Labels are class names, or integers if every row holds one. Integers are indices: into
    `class_names`, else they run from 0 without a gap and take their names from the name column, or
    are their own names.

    Args:
      csv_path: The CSV, in UTF-8.
      path_column: Column of image paths, relative to the CSV's folder.
      label_column: Column of labels.
      name_column: Column of class names beside integer labels; `class_name` if there is one.
      split_column: Column of split names; `split` if there is one.
      split: The split's name where no column says.
      class_names: The classes in label order; by default sorted names, or the integers' order.

    Returns:
      The records; a record's `filename` is the path as the CSV writes it.

    Raises:
      FileNotFoundError: the CSV or images that it lists are missing.
      ValueError: a column is missing, a field is empty, or a label is unknown or contradicts
        another row.
    """
    csv_path = Path(csv_path)
    if not csv_path.is_file():
        raise FileNotFoundError(f"{csv_path}: no such file; give a CSV with a header line")
    with csv_path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or []
        name_column = name_column or ("class_name" if "class_name" in header else None)
        split_column = split_column or ("split" if "split" in header else None)
        wanted = [c for c in (path_column, label_column, name_column, split_column) if c]
        for column in wanted:
            _check_column(csv_path, column, header)
        rows = [(reader.line_num, row) for row in reader]
    if not rows:
        raise ValueError(f"{csv_path} has a header but no rows")
    for line, row in rows:
        for column in wanted:
            row[column] = (row[column] or "").strip()
            if not row[column]:
                raise ValueError(f"{csv_path} line {line}: column {column!r} is empty")
    labels, names = _labels(csv_path, rows, label_column, name_column, class_names)
    splits: dict[str, list[ImageRecord]] = {}
    for (_, row), label in zip(rows, labels, strict=True):
        image = csv_path.parent / row[path_column]
        record = ImageRecord(row[path_column], label, image)
        splits.setdefault(row[split_column] if split_column else split, []).append(record)
    _check_files(csv_path, rows, path_column)
    return ImageCollection(tuple(names), splits)


def _check_column(csv_path: Path, column: str, header: Sequence[str]) -> None:
    if column not in header:
        hint = did_you_mean(column, header)
        raise ValueError(
            f"{csv_path} has no column {column!r}.{hint} Its columns are {', '.join(header)}"
        )


def _check_files(csv_path: Path, rows: list[tuple[int, dict]], path_column: str) -> None:
    missing = [
        f"line {line}: {row[path_column]}"
        for line, row in rows
        if not (csv_path.parent / row[path_column]).is_file()
    ]
    if missing:
        noun = "file" if len(missing) == 1 else "files"
        raise FileNotFoundError(
            f"{csv_path} lists {len(missing)} {noun} that {csv_path.parent} does not hold "
            f"(paths are relative to the CSV):\n{list_some(missing)}"
        )


def _labels(
    csv_path: Path,
    rows: list[tuple[int, dict]],
    label_column: str,
    name_column: str | None,
    class_names: Sequence[str] | None,
) -> tuple[list[int], Sequence[str]]:
    """Returns every row's label and the class names."""
    texts = [row[label_column] for _, row in rows]
    if not all(re.fullmatch(r"-?[0-9]+", text) for text in texts):
        names = class_names or sorted(set(texts))
        for line, row in rows:
            if row[label_column] not in names:
                problem = unknown_class(row[label_column], names)
                raise ValueError(f"{csv_path} line {line}: label {problem}")
        indices = {name: label for label, name in enumerate(names)}
        return [indices[text] for text in texts], names
    labels = [int(text) for text in texts]
    names = class_names or _names_of_integers(csv_path, rows, labels, name_column)
    for (line, row), label in zip(rows, labels, strict=True):
        if not 0 <= label < len(names):
            raise ValueError(
                f"{csv_path} line {line}: label {label} is outside 0..{len(names) - 1} "
                f"({len(names)} class names)"
            )
        if name_column and row[name_column] != names[label]:
            raise ValueError(
                f"{csv_path} line {line}: label {label} is {row[name_column]!r}, but "
                f"{names[label]!r} elsewhere"
            )
    return labels, names


def _names_of_integers(
    csv_path: Path, rows: list[tuple[int, dict]], labels: list[int], name_column: str | None
) -> list[str]:
    found: dict[int, str] = {}
    for (_, row), label in zip(rows, labels, strict=True):
        found.setdefault(label, row[name_column] if name_column else str(label))
    missing = sorted(set(range(max(found))) - set(found))
    if missing:
        raise ValueError(
            f"{csv_path}: labels go up to {max(found)} but no row has label {missing[0]}; number "
            "the classes from 0 without a gap, or name them all with --class_names"
        )
    names = [found[label] for label in sorted(found)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{csv_path}: class name {twice!r} stands for more than one label")
    return names
