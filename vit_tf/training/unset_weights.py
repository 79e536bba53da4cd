"""Models without the memory of their weights, to find out what their programs cost."""

import contextlib
import math
from collections.abc import Callable, Iterator
from unittest import mock

import keras
import tensorflow as tf

# Small variables, such as counters of steps and seeds, are looked at while a program is made.
_SMALL = 1024


@contextlib.contextmanager
def unset_weights() -> Iterator[None]:
    """Inside, new Keras variables of more than 1024 elements have no values.

    Their memory is asked for and never touched, so that the system does not provide it: a model of
    billions of parameters is built on a laptop, with its optimizer's slots, in seconds. Such
    models can be traced and lowered; what they compute means nothing.
    """
    initialize = keras.Variable._initialize_with_initializer

    def without_values(variable: keras.Variable, initializer: Callable) -> None:
        shape = variable.shape
        if math.prod(shape) <= _SMALL:
            initialize(variable, initializer)
        else:
            variable._initialize(
                lambda: tf.raw_ops.Empty(shape=shape, dtype=tf.as_dtype(variable.dtype), init=False)
            )

    with mock.patch.object(keras.Variable, "_initialize_with_initializer", without_values):
        yield
