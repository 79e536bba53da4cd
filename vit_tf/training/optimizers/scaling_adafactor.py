"""The Adafactor of Scaling ViT: hardly more state than a momentum in bfloat16."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from vit_tf.training.optimizers.slots import add_slots, rounded, slot_name


@keras.saving.register_keras_serializable("vit_tf")
class ScalingAdafactor(keras.optimizers.Optimizer):
    """Adafactor as Zhai et al. 2022 changed it (Scaling ViT, section 3.4).

    Second moments are factored, with the decay min(beta_2_cap, 1 - t^-0.8); the momentum is an
    exponential average in bfloat16 without bias correction; there is no relative step size and no
    scaling by the size of parameters. It is big_vision's `scale_by_adafactor`; Keras' own
    `Adafactor` is the original (Shazeer and Stern, 2018).

    Args:
      learning_rate: a number or a Keras schedule.
      momentum: decay of the average of updates; None is without. Next to bfloat16 it is rounded
        (see `slots.rounded`).
      momentum_dtype: what the momentum is stored in.
      beta_2_cap: largest decay of the second moments.
      decay_rate: exponent c of the decay 1 - t^-c, t counted from 1.
      min_dim_size_to_factor: second moments are factored over the two largest axes if both are at
        least so long.
      clip_threshold: largest root mean square of a weight's update; None leaves it.
      epsilon: added to squared gradients.
      weight_decay: decoupled, as in every Keras optimizer.
      **kwargs: of `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.001,
        momentum: float | None = 0.9,
        momentum_dtype: str = "bfloat16",
        beta_2_cap: float = 0.999,
        decay_rate: float = 0.8,
        min_dim_size_to_factor: int = 32,
        clip_threshold: float | None = None,
        epsilon: float = 1e-30,
        weight_decay: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.momentum = momentum
        self.momentum_dtype = momentum_dtype
        self.beta_2_cap = beta_2_cap
        self.decay_rate = decay_rate
        self.min_dim_size_to_factor = min_dim_size_to_factor
        self.clip_threshold = clip_threshold
        self.epsilon = epsilon

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates for every variable two factors or a full second moment, and the momentum."""
        if self.built:
            return
        super().build(variables)
        # A factor lacks the axis that it is the mean over; a full moment is a single "factor".
        self._first_factors, self._second_factors = [], []
        for variable in variables:
            axes = self._factored_axes(variable.shape)
            shapes = [_without(variable.shape, axis) for axis in axes] or [variable.shape, None]
            for slots, shape, name in zip(
                (self._first_factors, self._second_factors),
                shapes,
                ("first", "second"),
                strict=True,
            ):
                slot_title = slot_name(variable, f"{name}_factor")
                slots.append(None if shape is None else self.add_variable(shape, name=slot_title))
        if self.momentum is not None:
            self._momenta = add_slots(self, variables, "momentum", self.momentum_dtype)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable and its slots."""
        place = self._get_variable_index(variable)
        gradient = ops.cast(gradient, "float32")
        update = gradient * self._inverse_root(gradient, place)
        if self.clip_threshold is not None:
            size = ops.sqrt(ops.mean(ops.square(update)))
            update = update / ops.maximum(1.0, size / self.clip_threshold)
        if self.momentum is not None:
            stored = self._momenta[place]
            decay = rounded(self.momentum, self.momentum_dtype)
            update = decay * ops.cast(stored, "float32") + (1 - self.momentum) * update
            self.assign(stored, update)
        self.assign_sub(variable, learning_rate * update)

    def _inverse_root(self, gradient: Any, place: int) -> Any:
        """Updates the second moments of a variable; returns 1 / sqrt of them, in its shape."""
        step = ops.cast(self.iterations + 1, "float32")
        decay = ops.minimum(self.beta_2_cap, 1.0 - ops.power(step, -self.decay_rate))
        squares = ops.square(gradient) + self.epsilon

        def averaged(slot: keras.Variable, value: Any) -> Any:
            average = decay * slot + (1.0 - decay) * value
            self.assign(slot, average)
            return average

        axes = self._factored_axes(gradient.shape)
        if not axes:
            return ops.rsqrt(averaged(self._first_factors[place], squares))
        longest, second = axes
        row = averaged(self._first_factors[place], ops.mean(squares, axis=longest))
        column = averaged(self._second_factors[place], ops.mean(squares, axis=second))
        row, column = ops.expand_dims(row, longest), ops.expand_dims(column, second)
        relative = row / ops.mean(row, axis=second, keepdims=True)
        return ops.rsqrt(relative) * ops.rsqrt(column)

    def _factored_axes(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The longest axis and the second, or none if that one is too short."""
        if len(shape) < 2:
            return ()
        *_, second, longest = np.argsort(shape, kind="stable").tolist()
        return (longest, second) if shape[second] >= self.min_dim_size_to_factor else ()

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("momentum", "momentum_dtype", "beta_2_cap", "decay_rate", "clip_threshold")
        names += ("min_dim_size_to_factor", "epsilon")
        return super().get_config() | {name: getattr(self, name) for name in names}


def _without(shape: Sequence[int], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])
