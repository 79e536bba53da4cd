"""Predictors: encoded images in, named classes out, whatever runs the model."""

from vit_tf.export.predictors.base import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
