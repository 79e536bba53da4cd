"""The two laws, and the least squares that find their coefficients."""

import dataclasses
import itertools

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult, least_squares

# Where the search starts: exponents, shares of the smallest error that remain, and shifts in units
# of the smallest compute.
_EXPONENTS, _REMAINING, _SHIFTS = (0.1, 0.3, 1.0), (0.01, 0.5, 0.9), (0.01, 1.0, 30.0)
_LARGEST_EXPONENT = 10.0
# The shift is at most so many times the largest compute: beyond, the law is flat in all points.
_LARGEST_SHIFT = 10.0
_MOST_EVALUATIONS = 1000
# Bounds are approached and not reached: less than this, in the search's units, is nothing.
_NOTHING = 1e-9


class ScalingLawError(ValueError):
    """The points do not determine the law: they are too few, or the search did not end."""


@dataclasses.dataclass(frozen=True)
class SaturatingLaw:
    """E = a·(C + d)^-b + c, the saturating power law.

    Source: Zhai et al., 2022, "Scaling Vision Transformers" (arXiv:2106.04560), section 2.

    Attributes:
      a: error at C + d = 1 beyond the one that remains; it depends on the unit of compute.
      b: exponent, at least 0.
      c: the error that no compute takes away.
      d: compute below which more of it helps less; in the unit of compute.
    """

    a: float
    b: float
    c: float
    d: float

    def __call__(self, compute: ArrayLike) -> np.ndarray:
        """Error at some compute, float64 of its shape."""
        # In logarithms: a is beyond float64 where compute is in FLOPs and b is large.
        beyond = np.log(self.a) - self.b * np.log(np.asarray(compute, np.float64) + self.d)
        return np.exp(beyond) + self.c

    def __str__(self) -> str:
        base = f"(C + {self.d:.3g})" if self.d else "C"
        remaining = f" + {self.c:.3g}" if self.c else ""
        return f"E = {self.a:.3g}·{base}^-{self.b:.3g}{remaining}"


@dataclasses.dataclass(frozen=True)
class LogLogLaw:
    """E = 10^intercept · C^slope, a line in log10 of compute and of error.

    Source: Cherti et al., 2023 (arXiv:2212.07143), section 3.

    Attributes:
      slope: of the line, negative where compute helps.
      intercept: log10 of the error at C = 1.
    """

    slope: float
    intercept: float

    def __call__(self, compute: ArrayLike) -> np.ndarray:
        """Error at some compute, float64 of its shape."""
        return 10 ** (self.intercept + self.slope * np.log10(np.asarray(compute, np.float64)))

    def __str__(self) -> str:
        return f"E = 10^{self.intercept:.3g}·C^{self.slope:.3g}"


Law = SaturatingLaw | LogLogLaw


def log_log_law(compute: np.ndarray, error: np.ndarray) -> LogLogLaw:
    """The line through points [points] with the least squares in log10(error).

    Raises:
      ScalingLawError: for points of fewer than two computes.
    """
    _check_number(np.unique(compute), 2, "different computes")
    slope, intercept = np.polyfit(np.log10(compute), np.log10(error), 1)
    return LogLogLaw(float(slope), float(intercept))


def saturating_law(
    compute: np.ndarray, error: np.ndarray, near: SaturatingLaw | None = None
) -> SaturatingLaw:
    """The law through points [points] with the least squares in log(error).

    The search is bounded (a > 0; b, c, d ≥ 0; c at most the smallest error) and starts from many
    places, of which the best end counts.

    Args:
      compute: [points], positive.
      error: [points], in (0, 1].
      near: where to start from instead.

    Raises:
      ScalingLawError: for fewer than four different points, or if no search ends.
    """
    _check_number(np.unique(np.stack([compute, error]), axis=1).T, 4, "different points")
    search = _Search(compute, error)
    starts = search.starts() if near is None else [search.of_law(near)]
    found = [search.run(start) for start in starts]
    ended = [result for result in found if result.status > 0]
    if not ended:
        raise ScalingLawError(
            f"no search for the saturating law through {len(compute)} points ended after "
            f"{_MOST_EVALUATIONS} evaluations; look at the points, or fit the log-log law"
        )
    return search.law(min(ended, key=lambda result: result.cost).x)


class _Search:
    """Least squares in coefficients that are about 1 whatever the unit of compute.

    These are log(a') with a' the error beyond c where C + d is the geometric mean of compute; b; c
    in units of the smallest error; and d in units of the smallest compute.
    """

    def __init__(self, compute: np.ndarray, error: np.ndarray):
        self._compute, self._log_error = compute, np.log(error)
        self._middle = np.exp(np.log(compute).mean())
        self._least_compute, self._least_error = compute.min(), error.min()
        most = _LARGEST_SHIFT * compute.max() / compute.min()
        self._bounds = ([-np.inf, 0.0, 0.0, 0.0], [np.inf, _LARGEST_EXPONENT, 1.0, most])

    def starts(self) -> list[np.ndarray]:
        """Coefficients to start from."""
        starts = []
        for b, c, d in itertools.product(_EXPONENTS, _REMAINING, _SHIFTS):
            beyond = np.exp(self._log_error) - c * self._least_error
            log_a = np.mean(np.log(beyond) + b * self._log_shifted(d))
            starts.append(np.array([log_a, b, c, d]))
        return starts

    def of_law(self, law: SaturatingLaw) -> np.ndarray:
        """A law's coefficients, moved to where they may be."""
        log_a = np.log(law.a) - law.b * np.log(self._middle)
        values = [log_a, law.b, law.c / self._least_error, law.d / self._least_compute]
        return np.clip(values, *self._bounds)

    def law(self, coefficients: np.ndarray) -> SaturatingLaw:
        """The law that coefficients stand for."""
        log_a, b, *rest = coefficients.tolist()
        c, d = (0.0 if value < _NOTHING else value for value in rest)
        a = np.exp(log_a + b * np.log(self._middle))
        return SaturatingLaw(float(a), b, float(c * self._least_error), d * self._least_compute)

    def run(self, start: np.ndarray) -> OptimizeResult:
        return least_squares(
            lambda coefficients: self._terms(coefficients)[0],
            start,
            lambda coefficients: self._terms(coefficients)[1],
            self._bounds,
            x_scale="jac",
            ftol=1e-12,
            xtol=1e-12,
            gtol=1e-12,
            max_nfev=_MOST_EVALUATIONS,
        )

    def _terms(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residuals [points] and their derivatives [points, 4]."""
        log_a, b, c, d = coefficients
        log_shifted = self._log_shifted(d)
        beyond = np.exp(log_a - b * log_shifted)
        error = beyond + c * self._least_error
        shifted = self._compute + d * self._least_compute
        derivatives = [
            beyond,
            -beyond * log_shifted,
            np.full_like(beyond, self._least_error),
            -b * beyond * self._least_compute / shifted,
        ]
        return np.log(error) - self._log_error, np.stack(derivatives, axis=1) / error[:, None]

    def _log_shifted(self, d: float) -> np.ndarray:
        return np.log((self._compute + d * self._least_compute) / self._middle)


def _check_number(found: np.ndarray, needed: int, what: str) -> None:
    if len(found) < needed:
        raise ScalingLawError(
            f"the law has {needed} coefficients and needs as many {what} to be fitted to; there "
            f"are {len(found)}. Train models of other sizes, or for other lengths"
        )
