"""What a fit says, as text and as JSON."""

import math
from collections.abc import Sequence
from typing import Any

from vit_tf.analysis.scaling_law.fit import Prediction, ScalingFit
from vit_tf.analysis.scaling_law.points import ScalingPoint, pareto_frontier
from vit_tf.analysis.text_table import text_table


def frontier_beyond(points: Sequence[ScalingPoint], compute: float) -> list[ScalingPoint]:
    """The points on the Pareto frontier of all that took more than a compute.

    They are what a law that was fitted up to it is to foretell.
    """
    best = pareto_frontier([point.compute for point in points], [point.error for point in points])
    return [points[number] for number in best if points[number].compute > compute]


def describe_fit(
    name: str,
    fit: ScalingFit,
    prediction: Prediction | None = None,
    beyond: Sequence[ScalingPoint] | None = None,
) -> str:
    """A fit in lines for a terminal: formula, coefficients, distances and predictions.

    Args:
      name: of the law.
      fit: what is described.
      prediction: of the fit, at a vector of computes.
      beyond: points that the law was not fitted to, whose distance from it is told.

    Returns:
      Lines without a last line break.
    """
    bounds = [f"{100 * share:.4g} %" for share in fit.quantiles]
    coefficients = [
        [coefficient, *(_written(number) for number in (value, *fit.intervals[coefficient]))]
        for coefficient, value in fit.coefficients.items()
    ]
    lines = [
        f"{name}: {fit.law}",
        f"fitted to {len(fit.compute)} points, mean distance {fit.mean_absolute_error():.2f} "
        "percentage points",
    ]
    if beyond is not None:
        distance = _distance(fit, beyond)
        told = "unknown" if distance is None else f"{distance:.2f} percentage points"
        lines.append(f"{len(beyond)} frontier points beyond, mean distance {told}")
    if fit.resamples and not fit.has_interval:
        lines.append(
            f"no intervals: only {len(fit.resampled)} of {fit.resamples} resamples have points "
            "enough for this law; train more models"
        )
    lines += ["", text_table([["coefficient", "value", *bounds], *coefficients])]
    if prediction is not None:
        rows = zip(*(values.tolist() for values in prediction), strict=True)
        percents = [
            [_written(compute), *(_written(100 * error, ".2f", " %") for error in errors)]
            for compute, *errors in rows
        ]
        lines += ["", text_table([["compute", "error", *bounds], *percents])]
    return "\n".join(lines)


def fit_as_json(
    fit: ScalingFit,
    prediction: Prediction | None = None,
    beyond: Sequence[ScalingPoint] | None = None,
) -> dict[str, Any]:
    """A fit as JSON has it; what is unknown is None. Arguments as of `describe_fit`."""
    rows = [] if prediction is None else zip(*(v.tolist() for v in prediction), strict=True)
    return {
        "formula": str(fit.law),
        "coefficients": {
            name: {"value": value, **_known(zip(("low", "high"), fit.intervals[name], strict=True))}
            for name, value in fit.coefficients.items()
        },
        "confidence": fit.confidence,
        "resamples": fit.resamples,
        "resamples_fitted": len(fit.resampled),
        "fitted_to": [
            {"compute": compute, "error": error}
            for compute, error in zip(fit.compute.tolist(), fit.error.tolist(), strict=True)
        ],
        "mean_distance_points": fit.mean_absolute_error(),
        "beyond": None if beyond is None else len(beyond),
        "mean_distance_points_beyond": _distance(fit, beyond or ()),
        "predictions": [_known(zip(Prediction._fields, row, strict=True)) for row in rows],
    }


def _distance(fit: ScalingFit, points: Sequence[ScalingPoint]) -> float | None:
    """Mean distance in percentage points; None without points."""
    if not points:
        return None
    return fit.mean_absolute_error([p.compute for p in points], [p.error for p in points])


def _written(value: float, form: str = ".4g", unit: str = "") -> str | None:
    """A number as a cell of a table, None for nan."""
    return f"{value:{form}}{unit}" if math.isfinite(value) else None


def _known(pairs: zip) -> dict[str, float | None]:
    """Values by name, None for nan."""
    return {name: value if math.isfinite(value) else None for name, value in pairs}
