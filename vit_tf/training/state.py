"""Variables by name, as checkpoints hold them.

`tf.train.Checkpoint(model=model)` follows Keras 3 objects only where it knows their containers; a
model that keeps its blocks in a list would be saved without them, silently. Here every variable
that a model or an optimizer lists is put into the checkpoint under its own path, none left out.
"""

import re
from collections.abc import Iterable

import keras
import tensorflow as tf

from vit_tf.models.weight_names import weight_names

# What TensorFlow raises for a checkpoint that is damaged (its reader: IndexError), incomplete, or
# of other variables.
RESTORE_ERRORS = (tf.errors.OpError, AssertionError, ValueError, IndexError)


def by_path(variables: Iterable[keras.Variable]) -> dict[str, tf.Variable]:
    """Keras variables as TensorFlow's, by path (see `models.weight_names`)."""
    return {name: variable.value for name, variable in weight_names(variables).items()}


def optimizer_state(optimizer: keras.optimizers.Optimizer) -> dict[str, tf.Variable]:
    """An optimizer's variables by its class and their place.

    Their paths hold the names of the model's layers, and with those Keras' numbers. A constant
    learning rate is a variable too, but belongs to the configuration, not to the state.
    """
    kind = type(optimizer).__name__
    return {
        f"{kind}/{place:05d}": variable.value
        for place, variable in enumerate(optimizer.variables)
        if not variable.path.endswith("/learning_rate")
    }


def holds_averages(path: str) -> bool:
    """Whether a checkpoint has averages of the weights (`RunConfig.ema`) beside these."""
    try:
        names = tf.train.load_checkpoint(path).get_variable_to_shape_map()
    except RESTORE_ERRORS:
        return False  # `load_weights` says what is wrong
    return any(name.startswith("ema/") for name in names)


def load_weights(model: keras.Model, path: str, averages: bool = False) -> int:
    """Loads a checkpoint's weights, all of them, into a model.

    Args:
      model: built, of the checkpoint's architecture.
      path: a training checkpoint, or one that `ModelDir.keep_if_best` wrote.
      averages: loads the averages of the weights instead, which it must hold.

    Returns:
      The step in the checkpoint's name; 0 if it has none.

    Raises:
      ValueError: if the file is damaged or of another model.
    """
    status = None
    try:
        weights = by_path(model.weights)
        checkpoint = tf.train.Checkpoint(**{"ema" if averages else "model": weights})
        status = checkpoint.read(path)
        status.assert_existing_objects_matched()
    except RESTORE_ERRORS as error:
        raise ValueError(f"cannot load {path} into this model: {first_line(error)}") from error
    finally:
        if status is not None:
            status.expect_partial()
    step = re.search(r"-(\d+)$", path)
    return int(step.group(1)) if step else 0


def first_line(error: Exception) -> str:
    """First line of an error's message, without TensorFlow's stack of nodes."""
    message = getattr(error, "message", None) or str(error)
    return message.splitlines()[0] if message else type(error).__name__
