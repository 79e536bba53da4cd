"""Evaluators: what a model's outputs are worth."""

from vit_tf.evaluation.evaluator import ProbeEvaluator
from vit_tf.evaluation.extraction import extract
from vit_tf.evaluation.feature_set import FeatureSet

__all__ = ["FeatureSet", "ProbeEvaluator", "extract"]
