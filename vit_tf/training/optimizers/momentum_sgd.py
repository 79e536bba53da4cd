"""Momentum SGD whose accumulator may be bfloat16."""

from typing import Any

import keras
from keras import ops

from vit_tf.training.optimizers.slots import add_slots, rounded


@keras.saving.register_keras_serializable("vit_tf")
class MomentumSGD(keras.optimizers.Optimizer):
    """SGD with the learning rate outside the momentum, as torch and optax have it.

    `m = momentum * m + g; w -= learning_rate * m`. Keras' own `SGD` accumulates
    `learning_rate * g`, which differs whenever the rate changes. This is big_vision's `momentum_hp`
    and the optimizer of vision_transformer's fine-tuning (`optax.trace`), in float32 arithmetic
    whatever the dtype of the accumulator.

    Args:
      learning_rate: a number or a Keras schedule.
      momentum: decay of the accumulator; next to a bfloat16 one it is rounded (see
        `slots.rounded`).
      nesterov: whether the step looks ahead: `w -= learning_rate * (g + momentum * m)`.
      accumulator_dtype: what the momentum is stored in.
      weight_decay: decoupled, as in every Keras optimizer.
      **kwargs: of `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.01,
        momentum: float = 0.9,
        nesterov: bool = False,
        accumulator_dtype: str = "bfloat16",
        weight_decay: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.momentum = momentum
        self.nesterov = nesterov
        self.accumulator_dtype = accumulator_dtype

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates an accumulator for every variable."""
        if self.built:
            return
        super().build(variables)
        self._accumulators = add_slots(self, variables, "momentum", self.accumulator_dtype)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable and its accumulator."""
        stored = self._accumulators[self._get_variable_index(variable)]
        gradient = ops.cast(gradient, "float32")
        decay = rounded(self.momentum, self.accumulator_dtype)
        accumulator = gradient + decay * ops.cast(stored, "float32")
        step = gradient + self.momentum * accumulator if self.nesterov else accumulator
        self.assign(stored, accumulator)
        self.assign_sub(variable, learning_rate * step)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "accumulator_dtype": self.accumulator_dtype,
        }
