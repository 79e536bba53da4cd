"""Scaling laws: the error of models over the compute that their training took."""

from vit_tf.analysis.scaling_law.fit import Prediction, ScalingFit, fit_log_log, fit_saturating
from vit_tf.analysis.scaling_law.laws import LogLogLaw, SaturatingLaw, ScalingLawError
from vit_tf.analysis.scaling_law.plot import plot_scaling_law
from vit_tf.analysis.scaling_law.points import ScalingPoint, lower_envelope, pareto_frontier
from vit_tf.analysis.scaling_law.report import describe_fit, fit_as_json, frontier_beyond
from vit_tf.analysis.scaling_law.table import read_scaling_points

__all__ = [
    "LogLogLaw",
    "Prediction",
    "SaturatingLaw",
    "ScalingFit",
    "ScalingLawError",
    "ScalingPoint",
    "describe_fit",
    "fit_as_json",
    "fit_log_log",
    "fit_saturating",
    "frontier_beyond",
    "lower_envelope",
    "pareto_frontier",
    "plot_scaling_law",
    "read_scaling_points",
]
