"""Optimizer slots in a dtype of their own, such as moments in bfloat16."""

from collections.abc import Sequence

import keras
import tensorflow as tf


def add_slots(
    optimizer: keras.optimizers.Optimizer,
    variables: Sequence[keras.Variable],
    name: str,
    dtype: str = "float32",
) -> list[keras.Variable]:
    """Adds a slot of zeros for every variable, of its shape but not of its dtype."""
    return [
        optimizer.add_variable(variable.shape, dtype=dtype, name=slot_name(variable, name))
        for variable in variables
    ]


def slot_name(variable: keras.Variable, name: str) -> str:
    """As Keras names slots: the variable's path and what the slot holds."""
    return f"{variable.path.replace('/', '_')}_{name}"


def rounded(decay: float, dtype: str) -> float:
    """A moment's decay as optax has it: rounded to the dtype that the moment is stored in.

    0.9 beside a bfloat16 moment is 0.8984375, which moves parameters by about 0.7 % of an update;
    published recipes with bfloat16 moments were run with that. The factor of the gradient, 1 - 0.9,
    is not rounded.
    """
    number = tf.as_dtype(dtype).as_numpy_dtype(decay)
    return decay if dtype == "float32" else float(number)
