"""Tables of trained models, one a line, as CSV files."""

import csv
import io
import os

import tensorflow as tf

from vit_tf.analysis.scaling_law.points import ScalingPoint

_NEEDED = ("compute", "error")


def read_scaling_points(path: str | os.PathLike) -> list[ScalingPoint]:
    """Reads a CSV file of trained models.

    Args:
      path: of the file, with a line of titles: the columns `compute` and `error`, see
        `ScalingPoint`, and where wanted `model`. Other columns are not looked at.

    Returns:
      A point a line, in their order.

    Raises:
      FileNotFoundError: if it is not there.
      ValueError: for a missing column, or a value that is none, naming the line.
    """
    path = os.fspath(path)
    if not tf.io.gfile.exists(path):
        raise FileNotFoundError(f"there is no file {path}")
    with tf.io.gfile.GFile(path, "rb") as file:
        text = file.read().decode("utf-8-sig")
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    titles = [title.strip() for title in rows.fieldnames or ()]
    rows.fieldnames = titles
    if missing := [name for name in _NEEDED if name not in titles]:
        raise ValueError(
            f"{path} has no column {' and no column '.join(missing)}; its first line has "
            f"{', '.join(titles) or 'nothing'}. {_hint(titles)}"
        )
    points = [_point(row, f"{path}, line {rows.line_num}") for row in rows]
    if not points:
        raise ValueError(f"{path} has titles and no line below them")
    return points


def _point(row: dict[str, str | None], name: str) -> ScalingPoint:
    numbers = {}
    for column in _NEEDED:
        try:
            numbers[column] = float(row[column])
        except (TypeError, ValueError):
            raise ValueError(f"{name}: {column} is a number; given {row[column]!r}") from None
    return ScalingPoint(**numbers, model=(row.get("model") or "").strip(), name=name)


def _hint(titles: list[str]) -> str:
    if {"run", "step", "state"} <= set(titles):
        return (
            "It is the summary of a sweep: give the sweep's folder, whose runs tell their compute"
        )
    return "A line is such as 1e18,0.24,vit_s16 below the titles compute,error,model"
