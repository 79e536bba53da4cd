"""Optimizers that Keras does not have, with Keras' signature: usable in `model.compile` too."""

from vit_tf.training.optimizers.lamb import LAMB
from vit_tf.training.optimizers.lars import LARS
from vit_tf.training.optimizers.low_memory_adam import LowMemoryAdam
from vit_tf.training.optimizers.momentum_sgd import MomentumSGD
from vit_tf.training.optimizers.scaling_adafactor import ScalingAdafactor

__all__ = ["LAMB", "LARS", "LowMemoryAdam", "MomentumSGD", "ScalingAdafactor"]
