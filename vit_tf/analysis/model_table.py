"""The table of all models: what each one costs, and which public weights load into it.

`make model-table` writes it between the two markers of the README.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vit_tf.analysis.flops import count_flops
from vit_tf.models import create_model, without_allocation
from vit_tf.models.registry import registered

BEGIN, END = "<!-- models -->", "<!-- /models -->"
_HEADER = "| paper | name | parameters | GMACs | pixels | public weights |"
_RULE = "|---|---|---:|---:|---:|---|"


@dataclasses.dataclass(frozen=True)
class ModelRow:
    """What the table says about a registered variant.

    Args:
        family: Name of the family that takes its configuration, e.g. "vit".
        notation: How the paper writes the variant, e.g. "ViT-B/16".
        name: Registered name.
        parameters: Trainable parameters with the default number of classes.
        giga_macs: 10^9 multiply-adds of one image of the default size.
        image_size: The default (height, width) in pixels.
        weights: Tags of the public files.
    """

    family: str
    notation: str
    name: str
    parameters: int
    giga_macs: float
    image_size: tuple[int, int]
    weights: tuple[str, ...]


def model_table(
    names: Iterable[str], weights: Mapping[str, Sequence[str]] | None = None
) -> list[ModelRow]:
    """Counts what registered variants cost; no weight is allocated.

    Args:
        names: Registered names, see `list_models`.
        weights: Registered name -> tags of the public files that load into it.
    """
    return [_row(name, (weights or {}).get(name, ())) for name in names]


def to_markdown(rows: Iterable[ModelRow]) -> str:
    """Returns a folded Markdown table for each family, that with most rows first.

    Within a family, rows are in the order in which the variants are registered.
    """
    order = list(registered())
    rows = sorted(rows, key=lambda row: (row.family, order.index(row.name)))
    families = [list(group) for _, group in itertools.groupby(rows, lambda row: row.family)]
    families.sort(key=len, reverse=True)
    return "\n\n".join(_family_table(family) for family in families)


def shortened(tags: Iterable[str]) -> str:
    """Writes sorted tags in short.

    Tags with the same first word share it: `augreg: in1k, in21k` is `augreg_in1k` and
    `augreg_in21k`. Conversions by timm are left out where the file itself is among the tags.
    """
    tags = list(tags)
    conversions = [f"timm_{tag}" for tag in tags]
    originals = [tag for tag in tags if tag not in conversions]
    groups = []
    for word, same_word in itertools.groupby(originals, key=lambda tag: tag.split("_")[0]):
        first, *others = same_word
        rest = ", ".join(tag.removeprefix(f"{word}_") for tag in (first, *others))
        groups.append(f"{word}: {rest}" if others else first)
    return "; ".join(groups)


def write_between_markers(text: str, file: Path) -> None:
    """Replaces what stands between the two markers of a text file.

    Raises:
        ValueError: The file lacks the markers.
    """
    given = file.read_text(encoding="utf-8")
    before, begin, rest = given.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{file} needs a line {BEGIN} and, below it, a line {END}.")
    file.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _row(name, weights):
    def examine():
        model = create_model(name)
        parameters = sum(math.prod(weight.shape) for weight in model.trainable_variables)
        return parameters, count_flops(model) / 2e9, model.image_size

    return ModelRow(
        _family_of(name),
        registered()[name].notation or "",
        name,
        *without_allocation(examine),
        weights=tuple(weights),
    )


def _family_of(name):
    """The family of the same class of whose defaults the variant shares most and lacks fewest."""
    variant = registered()[name]
    families = {
        family: entry.config
        for family, entry in registered().items()
        if entry.is_family and entry.model_class is variant.model_class
    }

    def likeness(family):
        shared = [variant.config.get(key) == value for key, value in families[family].items()]
        return sum(shared) - (len(shared) - sum(shared))

    return max(families, key=likeness)


def _family_table(rows: Sequence[ModelRow]):
    summary = f"<b>{rows[0].family}</b>: {rows[0].notation} … {rows[-1].notation} ({len(rows)})"
    lines = [f"<details><summary>{summary}</summary>", "", _HEADER, _RULE]
    lines += [
        f"| {row.notation} | `{row.name}` | {row.parameters:,} | {row.giga_macs:.2f} "
        f"| {row.image_size[0]} | {shortened(row.weights)} |"
        for row in rows
    ]
    return "\n".join([*lines, "", "</details>"])
