"""The catalogue of public checkpoint files: `weights="augreg_in21k"` -> what to load from where.

`catalogue.csv` beside this file is the table; its comments say in which public source the names and
the accuracies of each group were found. A tag is unique for a model, and reads like timm's: who
trained it, on what, `_ft_` what it was fine-tuned on, and the resolution where it is not the usual
one. `timm_` and `bv_` stand before conversions and models by timm and big_vision.
"""

import csv
import dataclasses
import difflib
import fnmatch
import functools
from pathlib import Path
from typing import Any

from vit_tf.checkpoints.public.augreg import is_augreg_name, parse_augreg_name
from vit_tf.models import resolve_name
from vit_tf.suggestions import did_you_mean

_TABLE = Path(__file__).with_name("catalogue.csv")
_AUGREG_SOURCE = "AugReg (arXiv:2106.10270)"
_LICENCE = "Apache-2.0"


@dataclasses.dataclass(frozen=True)
class PublicFile:
    """A published checkpoint.

    Args:
        tag: What a user gives as `weights`.
        model: Registered name of the model.
        overrides: What `create_model(model, ...)` needs so that every weight of the file fits.
        url: `https://`, `gs://` or `hf://`, see `download`.
        upstream: Data of the pre-training.
        resolution: Side of the images in pixels.
        num_classes: Size of the head; 0 where the file has none, None where only the file tells.
        top1: Published ImageNet-1k accuracy in percent, None where none was found.
        source: Paper or project that published the weights.
        licence: Licence of the weights (SPDX).
        checksum: As `download` takes it, None where none is published.
    """

    tag: str
    model: str
    overrides: dict[str, Any]
    url: str
    upstream: str
    resolution: int
    num_classes: int | None
    top1: float | None
    source: str
    licence: str
    checksum: str | None = None


def list_weights(model_glob: str = "*") -> list[PublicFile]:
    """Returns the rows of the table for all models that match a glob, sorted by model and tag.

    Args:
        model_glob: Registered names such as "vit_*"; or one model, in the paper's notation too.

    Raises:
        ValueError: It is no glob, and no model has this name.
    """
    if not set(model_glob) & set("*?["):
        model_glob = resolve_name(model_glob)
    rows = [row for row in _table() if fnmatch.fnmatchcase(row.model, model_glob)]
    return sorted(rows, key=lambda row: (row.model, row.tag))


def find(model_name: str, tag: str) -> PublicFile:
    """Returns the public file of a model.

    Args:
        model_name: Registered name, e.g. "vit_b16".
        tag: A tag of the table, e.g. "augreg_in21k", or the name of any AugReg file.

    Raises:
        ValueError: There is no such file for the model; the tags that exist are given.
    """
    if is_augreg_name(tag):
        return _augreg_file(model_name, tag)
    rows = {row.tag: row for row in list_weights(model_name)}
    if tag not in rows:
        raise ValueError(_unknown_tag(model_name, tag, list(rows)))
    return rows[tag]


def _augreg_file(model_name, name):
    parsed = parse_augreg_name(name)
    if parsed.model != model_name:
        raise ValueError(
            f"{name!r} is a file of the model {parsed.model!r}, but {model_name!r} was asked for."
        )
    return PublicFile(
        tag=parsed.filename,
        model=parsed.model,
        overrides=parsed.overrides,
        url=parsed.url,
        upstream=parsed.upstream,
        resolution=parsed.resolution,
        num_classes=parsed.num_classes,
        top1=None,
        source=_AUGREG_SOURCE,
        licence=_LICENCE,
    )


def _unknown_tag(model_name, tag, tags):
    elsewhere = sorted(row.model for row in _table() if row.tag == tag)
    message = f"Model {model_name!r} has no public weights {tag!r}."
    if tags:
        message += f"{did_you_mean(tag, tags)} There are: {', '.join(sorted(tags))}."
    else:
        models = sorted({row.model for row in _table()})
        close = difflib.get_close_matches(model_name, models, n=3)
        message += f" There are none of this model; the closest with some: {', '.join(close)}."
    if elsewhere:
        message += f" {tag!r} exists for {', '.join(elsewhere)}."
    return message


@functools.cache
def _table() -> tuple[PublicFile, ...]:
    with _TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(map(_row, csv.DictReader(line for line in file if not line.startswith("#"))))


def _row(cells):
    resolution, num_classes = int(cells["resolution"]), int(cells["num_classes"])
    extra = (setting.split("=") for setting in cells["extra"].split())
    return PublicFile(
        tag=cells["tag"],
        model=cells["model"],
        overrides={
            "image_size": resolution,
            "num_classes": num_classes,
            **{key: int(value) if value.isdigit() else value for key, value in extra},
        },
        url=cells["url"],
        upstream=cells["upstream"],
        resolution=resolution,
        num_classes=num_classes,
        top1=float(cells["top1"]) if cells["top1"] else None,
        source=cells["source"],
        licence=cells["licence"],
        checksum=cells["checksum"] or None,
    )
