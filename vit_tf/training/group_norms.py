"""Norms of gradients and updates by layer: where a network learns, and where it does not."""

from collections.abc import Iterable, Sequence

import keras
import tensorflow as tf

from vit_tf.models.weight_names import weight_names
from vit_tf.training.clipping import global_norm


class GroupNorms:
    """Norms over the weights of each layer group: `block00`, `patch_embedding`, `head`, ...

    Args:
      weights: the weights; a group is the first part of their names.
    """

    def __init__(self, weights: Iterable[keras.Variable]):
        self._groups: dict[str, list[int]] = {}
        for place, name in enumerate(weight_names(weights)):
            self._groups.setdefault(name.partition("/")[0], []).append(place)

    def __call__(self, kind: str, tensors: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """Name `<kind>/<group>` -> float32 norm, of one tensor a weight."""
        return {
            f"{kind}/{group}": global_norm([tensors[place] for place in places])
            for group, places in self._groups.items()
        }
