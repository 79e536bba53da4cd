"""TensorFlow's profiler for chosen steps; TensorBoard shows what it writes."""

import tensorflow as tf


class Profiler:
    """Profiles the steps from `start` up to `stop`, those of them that this process does.

    Args:
      steps: (start, stop), counted from the run's very start; None profiles nothing.
      folder: where TensorBoard looks.
    """

    def __init__(self, steps: tuple[int, int] | None, folder: str):
        self._steps = steps
        self._folder = folder
        self._on = False

    def at(self, step: int) -> int | None:
        """Starts or stops before a step.

        Returns:
          Number of steps until it has to be asked again; None if never.
        """
        if self._steps is None or step >= self._steps[1]:
            self.close()
            return None
        start, stop = self._steps
        if step < start:
            return start - step
        if not self._on:
            tf.profiler.experimental.start(self._folder)
            self._on = True
        return stop - step

    def close(self) -> None:
        """Writes what there is."""
        if self._on:
            tf.profiler.experimental.stop()
            self._on = False
