"""Tables: rows of a regular expression and a value, that say something about every weight."""

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from vit_tf.models.weight_names import weight_names

Rows = Sequence[tuple[str, Any]]
Table = Rows | Callable[[keras.Model], Rows]

# What is left over, which may be nothing.
REST = ".*"
# Names that a row of the text shows.
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table and the weights that it caught.

    Attributes:
      pattern: regular expression that matches a whole name.
      value: what the row says of its weights.
      names: of the weights, in the model's order.
    """

    pattern: str
    value: Any
    names: tuple[str, ...]


def match(table: Table, model: keras.Model, names: Sequence[str], title: str) -> list[Row]:
    """Gives every weight to the first row whose expression matches its whole name.

    Args:
      table: rows, or a function of the model that returns them.
      model: what a function is called with.
      names: of weights (`models.weight_names`).
      title: of the table, for errors.

    Returns:
      A `Row` for each row of the table, in order.

    Raises:
      ValueError: for something that is no table or no regular expression, for a weight that no row
        matches, and for a row that catches no weight (the last one may, if it is `".*"`).
    """
    rows = _checked(table(model) if callable(table) else table, title)
    caught: list[list[str]] = [[] for _ in rows]
    for name in names:
        place = next((i for i, (regex, _) in enumerate(rows) if regex.fullmatch(name)), None)
        if place is None:
            raise ValueError(
                f"no row of Optimization.{title} matches the weight {name!r}; add a last row "
                f"({REST!r}, ...) for the rest. Its rows: {', '.join(r.pattern for r, _ in rows)}"
            )
        caught[place].append(name)
    for place, (regex, _) in enumerate(rows):
        if not caught[place] and not (regex.pattern == REST and place == len(rows) - 1):
            raise ValueError(_catches_nothing(regex, rows[:place], names, title))
    return [
        Row(regex.pattern, value, tuple(some))
        for (regex, value), some in zip(rows, caught, strict=True)
    ]


def values(rows: Sequence[Row]) -> dict[str, Any]:
    """What the rows say of each weight, by name."""
    return {name: row.value for row in rows for name in row.names}


def label(row: Row) -> str:
    """A row's expression as a short plain name: `head/.*` is `head`, `.*` is `rest`."""
    return re.sub(r"[^\w/]+", "_", row.pattern).strip("_/") or "rest"


def describe(title: str, rows: Sequence[Row], sizes: Mapping[str, int]) -> str:
    """A line for each row of a table: its value, expression, weights, parameters, first names.

    Args:
      title: of the table.
      rows: as matched.
      sizes: parameters of each weight, by name.

    Returns:
      Lines without a last line break, the title first.
    """
    cells = [
        (
            f"{row.value:g}" if isinstance(row.value, float) else f"{row.value}",
            row.pattern,
            f"{len(row.names)} weight{'s' * (len(row.names) != 1)}",
            f"{sum(sizes[name] for name in row.names):,} parameters",
            ", ".join(row.names[:_SHOWN]) + (", ..." if len(row.names) > _SHOWN else ""),
        )
        for row in rows
    ]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    lines = [
        f"  {value:<{widths[0]}}  {pattern:<{widths[1]}}  {count:>{widths[2]}}  {size:>{widths[3]}}"
        f"  {names}".rstrip()
        for value, pattern, count, size, names in cells
    ]
    return "\n".join([title, *lines])


def _checked(rows: Rows, title: str) -> list[tuple[re.Pattern, Any]]:
    try:
        return [(re.compile(pattern), value) for pattern, value in rows]
    except re.error as error:
        raise ValueError(
            f"Optimization.{title}: {error.pattern!r} is no regular expression: {error}"
        ) from error
    except (TypeError, ValueError):
        raise ValueError(
            f"Optimization.{title} must be rows of a regular expression and a value, such as "
            f"(('head/.*', 10.0), ('.*', 1.0)); given {rows!r}"
        ) from None


def _catches_nothing(
    regex: re.Pattern, before: Sequence[tuple], names: Sequence[str], title: str
) -> str:
    earlier = [name for name in names if regex.fullmatch(name)]
    if earlier:
        taken = next(r.pattern for r, _ in before if r.fullmatch(earlier[0]))
        why = f"{earlier[0]!r} and all else it matches belong to the row {taken!r} before it"
    else:
        close = difflib.get_close_matches(regex.pattern, names, n=3, cutoff=0.3) or names[:3]
        why = f"it must match a whole name, such as {', '.join(map(repr, close))}"
    return f"the row {regex.pattern!r} of Optimization.{title} catches no weight: {why}"


def layerwise_decay(rate: float) -> Callable[[keras.Model], Rows]:
    """Learning rates that fall by a factor from block to block, from the head down.

    The head and what stands after the last block learn at the full rate, block i of n at
    rate^(n - i), embeddings and stem at rate^(n + 1): the rule of BEiT and MAE
    (`LayerDecayValueAssigner`, `lr_decay.py`), for models with blocks `block00`, `block01`, ...

    Args:
      rate: factor between neighbouring layers, in (0, 1]; 0.65 to 0.9 is usual.

    Returns:
      A function of the model, for `Optimization.learning_rate_table`.

    Raises:
      ValueError: for a rate out of range; when called, for a model without blocks.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"layerwise_decay.rate must lie in (0, 1]; given {rate}")

    def rows(model: keras.Model) -> Rows:
        parts = dict.fromkeys(n.partition("/")[0] for n in weight_names(model.trainable_weights))
        blocks = [part for part in parts if re.fullmatch(r"block\d+", part)]
        if not blocks:
            raise ValueError(
                "layerwise_decay needs a model with blocks block00, block01, ...; this one has "
                f"{', '.join(parts)}"
            )
        after = [part for part in parts if re.fullmatch(_AFTER_BLOCKS, part)]
        before = [part for part in parts if part not in {*blocks, *after}]
        scales = {block: rate ** (len(blocks) - place) for place, block in enumerate(blocks)}
        table = [(_any_of(before), rate ** (len(blocks) + 1))] if before else []
        table += [(f"{block}/.*", scale) for block, scale in scales.items()]
        return table + ([(_any_of(after), 1.0)] if after else [])

    return rows


_AFTER_BLOCKS = r"encoder_norm|map_head|sequence_pooling|pre_logits|head.*"


def _any_of(parts: Sequence[str]) -> str:
    return f"({'|'.join(map(re.escape, parts))})(/.*)?"
