"""Preprocessing strings that leave the size of the images open: `resize({size})`."""

import re
from collections.abc import Sequence

from vit_tf.data.ops import height_and_width

# `{size}`, or a multiple of it such as `{size * 7 / 6}`.
_PLACEHOLDER = re.compile(r"\{\s*size\s*(?:\*\s*([1-9]\d*)\s*(?:/\s*([1-9]\d*)\s*)?)?\}")


def fill_size(ops: str, image_size: int | Sequence[int] | None) -> str:
    """Puts a size in the place of every `{size}` of a preprocessing string.

    `{size * 7 / 6}` is a multiple, each side rounded: what is cut to 384 pixels may be resized to
    448 before. So one setting changes the resolution of a model and of all its data.

    Args:
      ops: such as `"decode|resize_small({size * 7 / 6})|central_crop({size})|value_range(-1, 1)"`.
      image_size: side in pixels, or (height, width); None only for strings without `{size}`.

    Returns:
      The string for `Preprocess`; without `{size}` it is as it was.

    Raises:
      ValueError: for another placeholder, and for `{size}` where no size is given.
    """
    sides = () if image_size is None else height_and_width(image_size)

    def filled(match: re.Match) -> str:
        if not sides:
            raise ValueError(
                f"the preprocessing {ops!r} leaves {match.group()} open; set Input.image_size (in "
                "the shipped gin files IMAGE_SIZE), or write the number itself"
            )
        factor, divisor = (int(number or 1) for number in match.groups())
        height, width = (round(side * factor / divisor) for side in sides)
        return f"({height}, {width})" if sides[0] != sides[1] else f"{height}"

    text = _PLACEHOLDER.sub(filled, ops)
    if "{" in text:
        raise ValueError(
            f"the preprocessing {ops!r} has a placeholder that is neither {{size}} nor a multiple "
            "of it such as {size * 7 / 6}"
        )
    return text
