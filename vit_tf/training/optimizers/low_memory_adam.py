"""Adam whose first moment is bfloat16: 6 instead of 8 bytes of state a parameter."""

from typing import Any

import keras
from keras import ops

from vit_tf.training.optimizers.slots import add_slots, rounded


@keras.saving.register_keras_serializable("vit_tf")
class LowMemoryAdam(keras.optimizers.Optimizer):
    """Adam with its first moment in half precision (Zhai et al. 2022, Scaling ViT, section 3.4).

    It is `optax.scale_by_adam(mu_dtype="bfloat16")`, with which big_vision trained AugReg and
    later models: arithmetic in float32, epsilon outside the root and after the bias corrections.

    Args:
      learning_rate: a number or a Keras schedule.
      beta_1: decay of the first moment; next to a bfloat16 one it is rounded (see
        `slots.rounded`).
      beta_2: decay of the second moment, which is always float32.
      epsilon: added to the root of the second moment.
      moment_dtype: what the first moment is stored in.
      weight_decay: decoupled, as in every Keras optimizer.
      **kwargs: of `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        moment_dtype: str = "bfloat16",
        weight_decay: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.moment_dtype = moment_dtype

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates both moments for every variable."""
        if self.built:
            return
        super().build(variables)
        self._first = add_slots(self, variables, "momentum", self.moment_dtype)
        self._second = add_slots(self, variables, "velocity")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable and its moments."""
        place = self._get_variable_index(variable)
        gradient = ops.cast(gradient, "float32")
        step = ops.cast(self.iterations + 1, "float32")
        decay = rounded(self.beta_1, self.moment_dtype)
        first = decay * ops.cast(self._first[place], "float32") + (1 - self.beta_1) * gradient
        second = self.beta_2 * self._second[place] + (1 - self.beta_2) * ops.square(gradient)
        self.assign(self._first[place], first)
        self.assign(self._second[place], second)
        first_mean = first / (1 - ops.power(self.beta_1, step))
        second_mean = second / (1 - ops.power(self.beta_2, step))
        update = first_mean / (ops.sqrt(second_mean) + self.epsilon)
        self.assign_sub(variable, learning_rate * update)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "moment_dtype": self.moment_dtype,
        }
