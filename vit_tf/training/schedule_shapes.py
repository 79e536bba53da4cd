"""Keras learning-rate schedules between a warm-up and a cool-down, in steps; see `schedules`."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


class Shape(keras.optimizers.schedules.LearningRateSchedule):
    """A relative rate with linear warm-up and cool-down around what a subclass decays.

    Args:
      steps: length of the run.
      warmup: steps of the rise from `warmup_start`.
      cooldown: steps of the fall to `final` at the end.
      final: rate at the end.
      warmup_start: rate at step 0, if there is a warm-up.
    """

    def __init__(
        self,
        steps: int,
        warmup: int = 0,
        cooldown: int = 0,
        final: float = 0.0,
        warmup_start: float = 0.0,
    ):
        self.steps = steps
        self.warmup = warmup
        self.cooldown = cooldown
        self.final = final
        self.warmup_start = warmup_start

    def _decay(self, step: Any) -> Any:
        """The rate without warm-up and cool-down; `step` is float32, of any shape."""
        raise NotImplementedError

    def __call__(self, step: Any) -> Any:
        """The rate at a step, counted from 0, of any shape: float32."""
        step = ops.cast(step, "float32")
        rate = self._decay(step)
        if self.cooldown:
            left = ops.clip((self.steps - step) / self.cooldown, 0.0, 1.0)
            rate = self.final + (rate - self.final) * left
        if self.warmup:
            done = ops.minimum(step / self.warmup, 1.0)
            rate = self.warmup_start + (rate - self.warmup_start) * done
        return rate

    def _left(self, step: Any) -> Any:
        """Share of the decay that is still to come: 1 until the warm-up's end, 0 at the end."""
        # Counted from the end: a difference of whole numbers is exact, 1 - progress is not.
        return ops.clip((self.steps - step) / (self.steps - self.warmup), 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return dict(vars(self))


@keras.saving.register_keras_serializable("vit_tf")
class Constant(Shape):
    """Always 1."""

    def _decay(self, step: Any) -> Any:
        return ops.ones_like(step)


@keras.saving.register_keras_serializable("vit_tf")
class Polynomial(Shape):
    """From 1 to `final` with the share of the run that is left, to a power."""

    def __init__(self, power: float = 1.0, **parts: Any):
        super().__init__(**parts)
        self.power = power

    def _decay(self, step: Any) -> Any:
        return self.final + (1 - self.final) * self._left(step) ** self.power


@keras.saving.register_keras_serializable("vit_tf")
class Cosine(Shape):
    """Half a cosine from 1 to `final`."""

    def _decay(self, step: Any) -> Any:
        # (1 + cos(pi x)) / 2 is sin^2(pi (1 - x) / 2), which keeps its digits near the end.
        return self.final + (1 - self.final) * ops.sin(math.pi / 2 * self._left(step)) ** 2


@keras.saving.register_keras_serializable("vit_tf")
class ReciprocalSqrt(Shape):
    """1 / sqrt(1 + (steps since the warm-up + shift) / timescale)."""

    def __init__(self, timescale: int = 10_000, shift: int = 0, **parts: Any):
        super().__init__(**parts)
        self.timescale = timescale
        self.shift = shift

    def _decay(self, step: Any) -> Any:
        since = ops.maximum(step - self.warmup, 0.0) + self.shift
        return 1.0 / ops.sqrt(1.0 + since / self.timescale)


@keras.saving.register_keras_serializable("vit_tf")
class Staircase(Shape):
    """`first`, and from each boundary on the factor that belongs to it."""

    def __init__(
        self,
        boundaries: Sequence[int] = (),
        factors: Sequence[float] = (),
        first: float = 1.0,
        **parts: Any,
    ):
        super().__init__(**parts)
        self.boundaries = tuple(boundaries)
        self.factors = tuple(factors)
        self.first = first

    def _decay(self, step: Any) -> Any:
        rates = ops.convert_to_tensor((self.first, *self.factors), "float32")
        boundaries = ops.convert_to_tensor((*self.boundaries, math.inf), "float32")
        passed = ops.sum(ops.cast(step[..., None] >= boundaries, "int32"), axis=-1)
        return ops.take(rates, passed)


@keras.saving.register_keras_serializable("vit_tf")
class Scaled(keras.optimizers.schedules.LearningRateSchedule):
    """A relative schedule times the peak: what an optimizer gets.

    Args:
      peak: learning rate where the schedule is 1.
      schedule: step -> relative rate.
    """

    def __init__(self, peak: float, schedule: keras.optimizers.schedules.LearningRateSchedule):
        self.peak = peak
        self.schedule = schedule

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step, counted from 0."""
        return self.peak * self.schedule(step)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, the schedule serialised."""
        schedule = keras.optimizers.schedules.serialize(self.schedule)
        return {"peak": self.peak, "schedule": schedule}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Scaled":
        """The schedule that `get_config` described."""
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(config["peak"], schedule)
