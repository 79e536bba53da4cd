"""Variables by name, as checkpoints hold them.

`tf.train.Checkpoint(model=model)` follows Keras 3 objects only where it knows their containers; a
model that keeps its blocks in a list would be saved without them, silently. Here every variable
that a model or an optimizer lists is put into the checkpoint under its own path, none left out.
"""

from collections.abc import Iterable

import keras
import tensorflow as tf


def by_path(variables: Iterable[keras.Variable]) -> dict[str, tf.Variable]:
    """Keras variables as TensorFlow's, by path.

    Args:
      variables: `model.weights`.

    Returns:
      Path without its first part, which Keras numbers by process -> variable. Variables that
      share a path are numbered in their order.
    """
    named: dict[str, tf.Variable] = {}
    for variable in variables:
        path = name = variable.path.partition("/")[2] or variable.path
        count = 1
        while name in named:
            count += 1
            name = f"{path}:{count}"
        named[name] = variable.value
    return named


def by_place(variables: Iterable[keras.Variable]) -> dict[str, tf.Variable]:
    """An optimizer's variables by their place in `optimizer.variables`.

    Their paths hold the names of the model's layers, and with those Keras' numbers.
    """
    return {f"{place:05d}": variable.value for place, variable in enumerate(variables)}


def model_checkpoint(model: keras.Model) -> tf.train.Checkpoint:
    """A checkpoint of a model's weights, which reads them out of a training checkpoint too."""
    return tf.train.Checkpoint(model=by_path(model.weights))
