"""Building models whose weights have shapes but no memory."""

import threading
from collections.abc import Callable
from typing import TypeVar

import keras

_Result = TypeVar("_Result")


def without_allocation(function: Callable[[], _Result]) -> _Result:
    """Calls `function` so that the models it builds allocate no weights.

    Their shapes, paths and counts are those of real models, so questions about models that do not
    fit this machine can be answered. The models themselves must not be used afterwards.

    Args:
        function: Takes no arguments.

    Returns:
        What `function` returns. What it raises is raised.
    """
    results, errors = [], []

    def run():
        try:
            with keras.StatelessScope(initialize_variables=False):
                results.append(function())
        except BaseException as error:
            errors.append(error)

    # Keras remembers uninitialised variables for each thread and would allocate them at the end of
    # any later stateless scope; a thread of its own takes that memory away with it.
    policy = keras.config.dtype_policy()
    thread = threading.Thread(target=lambda: (keras.config.set_dtype_policy(policy), run()))
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
