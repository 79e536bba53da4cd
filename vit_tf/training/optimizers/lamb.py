"""LAMB: Adam with steps in proportion to each layer's weights."""

from typing import Any

import keras
from keras import ops

from vit_tf.training.optimizers.layer_adaptive import LayerAdaptive, trust_ratio
from vit_tf.training.optimizers.slots import add_slots


@keras.saving.register_keras_serializable("vit_tf")
class LAMB(LayerAdaptive):
    """LAMB (You et al. 2020), as apex' `FusedLAMB`, with which DeiT-III was trained.

    A step is `learning_rate * ratio * (Adam's update + decay * weight)`, where the ratio is
    the norm of the weight over that of the bracket. Weights without decay are not adapted: their
    ratio is 1. Keras' own `Lamb` leaves the decay out of the bracket and adapts every weight.

    Args:
      learning_rate: a number or a Keras schedule.
      beta_1: decay of the first moment.
      beta_2: decay of the second moment.
      epsilon: added to the root of the second moment.
      weight_decay: inside the update.
      always_adapt: adapts weights without decay too (`use_nvlamb` in apex).
      global_clipnorm: largest global norm of the gradients, of which `FusedLAMB` makes a part of
        the method; None leaves them.
      **kwargs: of `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        weight_decay: float | None = 0.01,
        always_adapt: bool = False,
        global_clipnorm: float | None = 1.0,
        **kwargs: Any,
    ):
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            global_clipnorm=global_clipnorm,
            **kwargs,
        )
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.always_adapt = always_adapt

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates both moments for every variable."""
        if self.built:
            return
        super().build(variables)
        self._first = add_slots(self, variables, "momentum")
        self._second = add_slots(self, variables, "velocity")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable and its moments."""
        place = self._get_variable_index(variable)
        gradient, weight = ops.cast(gradient, "float32"), ops.cast(variable, "float32")
        step = ops.cast(self.iterations + 1, "float32")
        first = self.beta_1 * self._first[place] + (1 - self.beta_1) * gradient
        second = self.beta_2 * self._second[place] + (1 - self.beta_2) * ops.square(gradient)
        self.assign(self._first[place], first)
        self.assign(self._second[place], second)
        first_mean = first / (1 - ops.power(self.beta_1, step))
        second_mean = second / (1 - ops.power(self.beta_2, step))
        decay = (self.weight_decay or 0.0) * self.decay_factor(variable)
        update = first_mean / (ops.sqrt(second_mean) + self.epsilon) + decay * weight
        if decay or self.always_adapt:
            update = update * trust_ratio(weight, update)
        self.assign_sub(variable, learning_rate * update)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "always_adapt": self.always_adapt,
        }
