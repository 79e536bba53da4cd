"""Weights by name, without a model around them, and steps taken with them on any device."""

import keras
import numpy as np
import tensorflow as tf

from vit_tf.models.weight_names import weight_names
from vit_tf.training.gradients import sum_over_replicas
from vit_tf.training.optimization import Optimization
from vit_tf.training.run_length import RunLength
from vit_tf.training.strategies import create_strategy

MODES = ("eager", "xla", "mirrored")


class NamedWeights:
    """As much of a model as `Optimization` looks at."""

    def __init__(self, values: dict[str, np.ndarray], dtype: str = "float32"):
        self.weights = [keras.Variable(value, dtype=dtype) for value in values.values()]
        for name, weight in zip(values, self.weights, strict=True):
            weight._path = f"model/{name}"

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        return [weight for weight in self.weights if weight.trainable]

    def values(self) -> dict[str, np.ndarray]:
        named = weight_names(self.weights)
        return {name: np.asarray(weight, np.float32) for name, weight in named.items()}


class Steps:
    """Steps of an `Optimization`, one gradient after the other.

    Args:
      optimization: not yet built.
      start: weights by name.
      length: of the run.
      mode: `"eager"`, `"xla"`, or `"mirrored"`: in a graph on two virtual CPUs, each with half of
        the gradient.
    """

    def __init__(
        self,
        optimization: Optimization,
        start: dict[str, np.ndarray],
        length: RunLength,
        mode: str = "eager",
    ):
        self._optimization = optimization
        self._strategy = create_strategy("mirrored" if mode == "mirrored" else "cpu")
        with self._strategy.scope():
            self.model = NamedWeights(start)
            self.optimizer = optimization.build(self.model, length)
        self.weights = weight_names(self.model.trainable_weights)
        if mode == "mirrored":
            assert self._strategy.num_replicas_in_sync == 2
        run = self._run
        self._step = run if mode == "eager" else tf.function(run, jit_compile=mode == "xla")

    def _run(self, gradients: list[tf.Tensor]) -> tf.Tensor:
        replicas = self._strategy.num_replicas_in_sync
        weights = list(self.weights.values())

        def replica():
            shares = [gradient / replicas for gradient in gradients]
            return self._optimization.apply(sum_over_replicas(shares), weights)

        return self._strategy.run(replica) if replicas > 1 else replica()

    def step(self, gradients: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Takes a step; returns the weights after it."""
        self._step([tf.constant(gradients[name]) for name in self.weights])
        return self.model.values()
