"""What LAMB and LARS share: steps as long as the weights are, the weight decay inside them."""

from typing import Any

import keras
from keras import ops


class LayerAdaptive(keras.optimizers.Optimizer):
    """An optimizer whose step depends on the norms of a weight and of its decayed update.

    The weight decay is a part of the update here. Keras' way to exclude weights from it
    (`exclude_from_weight_decay`) holds; `Optimization` sets `decay_factors` instead, one factor of
    `weight_decay` for each weight the optimizer is built for, in their order.
    """

    decay_factors: list[float] | None = None

    def decay_factor(self, variable: Any) -> float:
        """Factor of a variable's weight decay; 0 excludes it."""
        if self.decay_factors is None:
            return float(self._use_weight_decay(variable))
        return self.decay_factors[self._get_variable_index(variable)]

    def _apply_weight_decay(self, variables: list[keras.Variable]) -> None:
        """Does nothing, in Keras' place: the update contains the decay."""


def trust_ratio(weight: Any, update: Any, eta: float = 1.0) -> Any:
    """`eta` times the norm of the weight over that of the update; 1 if either norm is 0."""
    weight_norm, update_norm = _norm(weight), _norm(update)
    both = ops.logical_and(weight_norm > 0, update_norm > 0)
    return ops.where(both, eta * weight_norm / ops.where(both, update_norm, 1.0), 1.0)


def _norm(value: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(value)))
