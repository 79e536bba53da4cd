"""Exponential moving averages of the weights (Polyak and Juditsky, 1992), which are evaluated."""

import dataclasses
from collections.abc import Iterable

import keras
import tensorflow as tf

from vit_tf.models.weight_names import weight_names


@dataclasses.dataclass(frozen=True)
class Ema:
    """How weights are averaged: after each step, average = decay * average + (1 - decay) * weight.

    Batch statistics are averaged too. The averages are in the checkpoints, so a run resumes
    exactly.

    Attributes:
      decay: 0.9999 averages over about 10,000 steps.
      warmup: begins with a smaller decay, min(decay, (1 + t) / (10 + t)) after t steps, so that the
        initial weights are soon forgotten (`tf.train.ExponentialMovingAverage` with
        `num_updates`).
      evaluate: evaluation, prediction and export take the averages; False: the weights themselves.
    """

    decay: float = 0.9999
    warmup: bool = False
    evaluate: bool = True

    def __post_init__(self):
        if not 0.0 <= self.decay < 1.0:
            raise ValueError(f"Ema.decay must lie in [0, 1); given {self.decay}")


class Averages:
    """The averages of a model's weights, kept beside it.

    Args:
      ema: how to average.
      model: built; the averages start from its weights.
      strategy: where it runs.
      constant: weights that training leaves alone.

    Raises:
      ValueError: for weights in a half type, which would swallow the small changes.
    """

    def __init__(
        self,
        ema: Ema,
        model: keras.Model,
        strategy: tf.distribute.Strategy,
        constant: Iterable[keras.Variable] = (),
    ):
        self._ema = ema
        self._weights = weight_names(model.weights)
        still = {id(weight) for weight in constant}
        self._moving = [name for name, w in self._weights.items() if id(w) not in still]
        half = [name for name in self._moving if self._weights[name].dtype != "float32"]
        if half:
            raise ValueError(
                f"RunConfig.ema needs float32 weights; {half[0]} is "
                f"{self._weights[half[0]].dtype}. Set RunConfig.precision = 'mixed_bfloat16', "
                "which computes in bfloat16 and keeps weights in float32"
            )
        with strategy.scope():
            self.variables = {
                name: tf.Variable(tf.identity(weight.value), trainable=False)
                for name, weight in self._weights.items()
            }

    @property
    def of_statistics(self) -> list[tf.Variable]:
        """The averages of batch statistics, which differ between replicas as those do."""
        return [self.variables[n] for n in self._moving if not self._weights[n].trainable]

    def update(self, steps: tf.Tensor, good: tf.Tensor | bool = True) -> None:
        """Moves the averages towards the weights, in replica context.

        Args:
          steps: optimizer steps done, this one included.
          good: False leaves the averages alone.
        """
        rate = tf.constant(1.0 - self._ema.decay)
        if self._ema.warmup:
            steps = tf.cast(steps, tf.float32)
            rate = tf.maximum(rate, 9.0 / (10.0 + steps))  # 1 - (1 + t) / (10 + t)
        rate = tf.where(good, rate, 0.0)
        for name in self._moving:
            average = self.variables[name]
            average.assign_add(rate * (self._weights[name].value - average))

    def in_place_of_weights(self) -> keras.StatelessScope:
        """A scope in which the model computes with the averages, in replica context."""
        return keras.StatelessScope(
            state_mapping=[
                (weight, tf.convert_to_tensor(self.variables[name]))
                for name, weight in self._weights.items()
            ]
        )
