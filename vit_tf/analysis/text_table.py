"""Rows of cells as lines of text, for terminals."""

from collections.abc import Sequence


def text_table(rows: Sequence[Sequence[object]]) -> str:
    """Puts the cells of each column one below the other.

    Args:
      rows: of equal length, the column's titles first. None is shown as `-`; columns whose values
        are all numbers (also `1.0 ± 0.1`) or None are set flush right.

    Returns:
      Lines without a last line break.
    """
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [all(map(_is_number, column[1:])) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        )
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in lines)


def _is_number(text: str) -> bool:
    try:
        for part in text.replace(",", "").removesuffix(" %").split(" ± "):
            float(part)
    except ValueError:
        return text == "-"
    return True
