"""Some of many things, for pictures that cannot hold them all."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def evenly_spread(values: Sequence[Any], count: int) -> list[Any]:
    """Picks values at even distances, the first and the last among them.

    Args:
      values: such as a model's layers.
      count: how many to pick. Of fewer values than that, some are picked several times.
    """
    places = np.linspace(0, len(values) - 1, count)
    return [values[place] for place in places.round().astype(int)]


def at_most(values: Sequence[Any], count: int) -> list[Any]:
    """All values, or as many as `count`, evenly spread."""
    return evenly_spread(values, min(len(values), count))
