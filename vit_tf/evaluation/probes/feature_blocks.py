"""Features read block by block, so that a split need not fit in memory, standardised on the way."""

import dataclasses
from collections.abc import Iterator

import numpy as np

BLOCK_VALUES = 2**25  # values in the largest array of a block: 128 MiB of float32
STD_EPSILON = 1e-5  # added to standard deviations, as big_vision's few-shot probe does


@dataclasses.dataclass(frozen=True)
class Standardization:
    """Subtracts a mean and divides by a deviation, feature by feature.

    Args:
      mean: float64 [width].
      deviation: float64 [width].
    """

    mean: np.ndarray
    deviation: np.ndarray

    def __call__(self, features: np.ndarray, dtype: np.typing.DTypeLike) -> np.ndarray:
        """Standardised features [examples, width] of a dtype."""
        dtype = np.dtype(dtype)
        centred = features.astype(dtype, copy=False) - self.mean.astype(dtype)
        return centred / self.deviation.astype(dtype)


def standardization(features: np.ndarray, rows: np.ndarray, on: bool = True) -> Standardization:
    """The mean and population deviation of some rows, the deviation plus 1e-5.

    Args:
      features: [examples, width].
      rows: indices to compute them of.
      on: False for a standardisation that changes nothing.

    Returns:
      What brings these rows to mean 0 and deviation 1.
    """
    width = features.shape[1]
    if not on:
        return Standardization(np.zeros(width), np.ones(width))
    blocks = list(row_blocks(rows, width))
    mean = sum(features[block].sum(0, dtype=np.float64) for block in blocks) / len(rows)
    squares = sum(((features[block] - mean) ** 2).sum(0) for block in blocks)
    return Standardization(mean, np.sqrt(squares / len(rows)) + STD_EPSILON)


def row_blocks(rows: np.ndarray, values_per_row: int) -> Iterator[np.ndarray]:
    """Cuts indices into runs of at most `BLOCK_VALUES` values."""
    length = max(1, BLOCK_VALUES // values_per_row)
    for first in range(0, len(rows), length):
        yield rows[first : first + length]
