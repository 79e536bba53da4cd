"""Trained models as points of compute and error, and which of them a law is fitted to."""

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike

# How far the last bin reaches beyond the largest log10(compute), so that this lies inside.
_BEYOND = 0.1


@dataclasses.dataclass(frozen=True)
class ScalingPoint:
    """A trained model.

    Args:
      compute: what its training took, positive; in any unit that all points share, such as FLOPs
        or TPU-core-days.
      error: share of wrong answers, in (0, 1].
      model: what a picture colours it by, such as `"vit_s16"`.
      name: what an error message calls it.

    Raises:
      ValueError: for a compute or an error that has no logarithm, or an error above 1.
    """

    compute: float
    error: float
    model: str = ""
    name: str = ""

    def __post_init__(self):
        of = f"{self.name}: " if self.name else ""
        if not (math.isfinite(self.compute) and self.compute > 0):
            raise ValueError(f"{of}compute is a positive number; given {self.compute:g}")
        if not 0 < self.error <= 1:
            hint = "divide percentages by 100" if self.error > 1 else "errors are 1 - accuracy"
            raise ValueError(
                f"{of}error is a share in (0, 1], as its logarithm is taken; given "
                f"{self.error:g}: {hint}"
            )


def as_arrays(compute: ArrayLike, error: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Compute and error as float64 [points], checked like a `ScalingPoint`.

    Raises:
      ValueError: for values that are none, or not as many of one as of the other.
    """
    compute, error = np.asarray(compute, np.float64), np.asarray(error, np.float64)
    if compute.ndim != 1 or compute.shape != error.shape:
        raise ValueError(
            "compute and error are a number a point, as many of one as of the other; given shapes "
            f"{compute.shape} and {error.shape}"
        )
    for number, pair in enumerate(zip(compute.tolist(), error.tolist(), strict=True)):
        ScalingPoint(*pair, name=f"point {number}")
    return compute, error


def pareto_frontier(compute: ArrayLike, error: ArrayLike) -> np.ndarray:
    """Which points no other point beats: the best model at each compute.

    A point is beaten by one that is no worse in compute and in error, and better in one of them.

    Args:
      compute: [points], positive.
      error: [points], in (0, 1].

    Returns:
      Their indices, int64, by ascending compute. Of equal points all are there or none.

    Raises:
      ValueError: see `ScalingPoint`.
    """
    compute, error = as_arrays(compute, error)
    order = np.lexsort((error, compute))
    kept = []
    for index in order:
        best = kept[-1] if kept else None
        if best is None or error[index] < error[best] or _are_equal(compute, error, index, best):
            kept.append(index)
    return np.array(kept, np.int64)


def lower_envelope(
    compute: ArrayLike, error: ArrayLike, bins: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """The smallest error in each bin of compute.

    Bins are equally wide in log10(compute), from the smallest to 0.1 beyond the largest; a bin's
    error stands at its centre. Empty bins are left out.

    Source: Cherti et al., 2023, "Reproducible scaling laws for contrastive language-image learning"
    (arXiv:2212.07143), the fit of its published notebook.

    Args:
      compute: [points], positive.
      error: [points], in (0, 1].
      bins: how many, at least 1.

    Returns:
      Compute at the centres and the smallest errors, float64 [bins that are not empty] each.

    Raises:
      ValueError: for fewer bins, or see `ScalingPoint`.
    """
    if bins < 1:
        raise ValueError(f"bins is at least 1; given {bins}")
    compute, error = as_arrays(compute, error)
    if not len(compute):
        return compute, error
    place = np.log10(compute)
    edges = np.linspace(place.min(), place.max() + _BEYOND, bins + 1)
    bin_of = np.clip(np.digitize(place, edges) - 1, 0, bins - 1)
    filled = np.unique(bin_of)
    centres = (edges[filled] + edges[filled + 1]) / 2
    return 10**centres, np.array([error[bin_of == number].min() for number in filled])


def _are_equal(compute: np.ndarray, error: np.ndarray, one: int, other: int) -> bool:
    return compute[one] == compute[other] and error[one] == error[other]
