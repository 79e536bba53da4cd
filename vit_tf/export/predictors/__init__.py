"""Predictors: encoded images in, named classes out, whatever runs the model."""

from vit_tf.export.predictors.base import Prediction, Predictor
from vit_tf.export.predictors.keras_model import KerasPredictor
from vit_tf.export.predictors.saved_model import SavedModelPredictor
from vit_tf.export.predictors.server import ServerPredictor

__all__ = ["KerasPredictor", "Prediction", "Predictor", "SavedModelPredictor", "ServerPredictor"]
