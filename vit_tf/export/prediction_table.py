"""Predictions as a person or a program reads them: a table, CSV or JSON lines."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vit_tf.export.predictors.base import Prediction

FORMATS = ("table", "csv", "jsonl")

Row = tuple[Path, Prediction]


def table_lines(rows: Iterable[Row], form: str, top_k: int) -> Iterator[str]:
    """Yields a line an image as they come, the likeliest class first.

    Args:
      rows: files with what was predicted, none with an error.
      form: `"table"` for a person; `"csv"`, with a header, or `"jsonl"`, objects with `file` and
        `classes` (pairs of name and probability), for a program.
      top_k: classes to name; fewer if the model names fewer.

    Raises:
      ValueError: if `form` is none of `FORMATS`.
    """
    if form not in FORMATS:
        raise ValueError(f"predictions are written as {', '.join(FORMATS)}; given {form!r}")
    return {"table": _text_lines, "csv": _csv_lines, "jsonl": _json_lines}[form](rows, top_k)


def _text_lines(rows: Iterable[Row], top_k: int) -> Iterator[str]:
    for file, prediction in rows:
        said = "   ".join(f"{n} {100 * p:5.1f} %" for n, p in _classes(prediction, top_k))
        yield f"{file!s:<40} {said}"


def _csv_lines(rows: Iterable[Row], top_k: int) -> Iterator[str]:
    header_written = False
    for file, prediction in rows:
        classes = _classes(prediction, top_k)
        if not header_written:
            yield _csv_header(len(classes))
            header_written = True
        yield _csv_line([file, *(part for pair in classes for part in pair)])
    if not header_written:
        yield _csv_header(top_k)


def _csv_header(places: int) -> str:
    numbered = [f"{name}_{n}" for n in range(1, places + 1) for name in ("class", "probability")]
    return _csv_line(["file", *numbered])


def _csv_line(cells: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _json_lines(rows: Iterable[Row], top_k: int) -> Iterator[str]:
    for file, prediction in rows:
        yield json.dumps({"file": str(file), "classes": _classes(prediction, top_k)})


def _classes(prediction: Prediction, top_k: int) -> list[tuple[str, float]]:
    pairs = zip(prediction.names, prediction.probabilities, strict=True)
    return list(pairs)[:top_k]
