"""LARS: momentum SGD with steps in proportion to each layer's weights."""

from typing import Any

import keras
from keras import ops

from vit_tf.training.optimizers.layer_adaptive import LayerAdaptive, trust_ratio
from vit_tf.training.optimizers.slots import add_slots


@keras.saving.register_keras_serializable("vit_tf")
class LARS(LayerAdaptive):
    """Layer-wise adaptive rate scaling (You et al. 2017), as BYOL and MoCo v3 have it.

    `u = g + decay * w; u *= eta * |w| / |u|; m = momentum * m + u; w -= learning_rate * m`. Weights
    whose decay factor is 0 (biases and norms, by the weight-decay table) are neither decayed nor
    adapted: for them u is g.

    Args:
      learning_rate: a number or a Keras schedule; published ones are for a batch of 256.
      momentum: decay of the accumulator.
      nesterov: whether the step looks ahead.
      eta: size of a step relative to the weights, at learning rate 1.
      weight_decay: inside the update.
      **kwargs: of `keras.optimizers.Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.2,
        momentum: float = 0.9,
        nesterov: bool = False,
        eta: float = 0.001,
        weight_decay: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.momentum = momentum
        self.nesterov = nesterov
        self.eta = eta

    def build(self, variables: list[keras.Variable]) -> None:
        """Creates an accumulator for every variable."""
        if self.built:
            return
        super().build(variables)
        self._accumulators = add_slots(self, variables, "momentum")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable and its accumulator."""
        stored = self._accumulators[self._get_variable_index(variable)]
        update, weight = ops.cast(gradient, "float32"), ops.cast(variable, "float32")
        factor = self.decay_factor(variable)
        if factor:
            update = update + (self.weight_decay or 0.0) * factor * weight
            update = update * trust_ratio(weight, update, self.eta)
        accumulator = self.momentum * stored + update
        step = update + self.momentum * accumulator if self.nesterov else accumulator
        self.assign(stored, accumulator)
        self.assign_sub(variable, learning_rate * step)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return super().get_config() | {
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "eta": self.eta,
        }
