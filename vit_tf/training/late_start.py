"""Weights that are trained from a later step on, in one graph for the whole run."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf


class LateStart:
    """Holds weights still until their step has come: no update, no decay, no optimizer state.

    From then on a weight is updated as if the optimizer had just begun with it: what corrects
    moments for their start (Adam, LAMB, Adafactor) counts from there. The learning rate is that of
    the run's schedule.

    Args:
      optimizer: built for the weights.
      starts: of each of its weights, in its order, the step with which it begins.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer, starts: Sequence[int]):
        self._optimizer = optimizer
        self._starts = list(starts)

    def only_begun(
        self, gradients: Sequence[tf.Tensor], weights: Sequence[keras.Variable]
    ) -> list[tf.Tensor]:
        """Gradients with zeros for the weights that are still held."""
        if not any(self._starts):
            return list(gradients)
        return [
            tf.where(self._has_begun(start), gradient, tf.zeros_like(gradient))
            if start
            else gradient
            for gradient, start in zip(gradients, map(self._start_of, weights), strict=True)
        ]

    def update(self, place: int, update: Callable[[], None]) -> None:
        """Calls `update`, which changes the weight at a place, if that has begun."""
        start = self._starts[place]
        if not start:
            update()
            return

        def begun() -> tf.Tensor:
            with self._counting_from(start):
                update()
            return tf.constant(True)

        tf.cond(self._has_begun(start), begun, lambda: tf.constant(False))

    def _start_of(self, weight: keras.Variable) -> int:
        return self._starts[self._optimizer._get_variable_index(weight)]

    def _has_begun(self, start: int) -> tf.Tensor:
        return tf.convert_to_tensor(self._optimizer.iterations) >= start

    @contextlib.contextmanager
    def _counting_from(self, start: int) -> Iterator[None]:
        """Within it the optimizer's count of steps is that since `start`."""
        attributes = vars(self._optimizer)  # past the optimizer's tracking of its variables
        count = attributes["_iterations"]
        attributes["_iterations"] = tf.convert_to_tensor(count) - start
        try:
            yield
        finally:
            attributes["_iterations"] = count
