"""The training loop on Orbit: many steps in one traced function, any task, any strategy."""

import time
from collections.abc import Callable

import orbit
import tensorflow as tf

from vit_tf.training.profiling import Profiler
from vit_tf.training.step import TrainStep
from vit_tf.training.strategies import is_tpu

# Orbit prints each of its log lines besides logging it; the progress line stands in their place.
orbit.controller._log = orbit.controller.logging.debug


_PIECE_SECONDS = 2.0


class TrainLoop(orbit.StandardTrainer):
    """`steps_per_loop` training steps in a `tf.while_loop`, and the means of what they saw.

    Args:
      step: what a replica does with its batch.
      strategy: where to run.
      steps_per_loop: the means are of so many steps, counted from the run's very start.
      profiler: asked before each piece of the loop.
    """

    def __init__(
        self,
        step: TrainStep,
        strategy: tf.distribute.Strategy,
        steps_per_loop: int,
        profiler: Profiler,
    ):
        super().__init__(train_dataset=None)
        self.step = step
        self._strategy = strategy
        self._steps_per_loop = steps_per_loop
        self._profiler = profiler
        self._piece = 1  # the first call traces and compiles
        # TensorFlow refuses its own clock where operations must be deterministic; a TPU's host may
        # be another machine, which cannot call Python here.
        self._clock = tf.timestamp if is_tpu(strategy) else _python_clock
        self._wait = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self.should_stop: Callable[[], bool] = lambda: False

    @property
    def global_step(self) -> tf.Variable:
        """Number of optimizer steps done."""
        return self.step.number

    @property
    def num_traces(self) -> int:
        """How often the step was traced; more than once would be a fault."""
        return self.step.num_traces

    def train_loop_begin(self) -> None:
        """Resets the sums, unless it goes on with a loop that a stop cut in two."""
        if int(self.global_step.numpy()) % self._steps_per_loop == 0:
            self.step.reset_sums()
        self._wait.assign(0.0)

    def create_train_loop_fn(self) -> Callable[[tf.data.Iterator, tf.Tensor], None]:
        """The loop in pieces of about two seconds, between which it may be asked to stop.

        Python learns of a signal only between calls into TensorFlow.
        """
        run = super().create_train_loop_fn()

        def run_in_pieces(iterator: tf.data.Iterator, num_steps: tf.Tensor) -> None:
            left, first = int(num_steps), int(self.global_step.numpy())
            while left:
                switch = self._profiler.at(first + int(num_steps) - left)
                piece = min(left, self._piece, switch or left)
                start = time.monotonic()
                run(iterator, tf.constant(piece))
                step_seconds = (time.monotonic() - start) / piece
                left -= piece
                self._piece = max(1, min(2 * self._piece, int(_PIECE_SECONDS / step_seconds)))
                if self.should_stop():  # asked after a piece: a loop without a step has no means
                    break

        return run_in_pieces

    def train_step(self, iterator: tf.data.Iterator) -> None:
        """One step: takes a batch, measuring the wait for it, and updates the weights."""
        before = self._clock()
        with tf.control_dependencies([before]):
            batch = next(iterator)
        arrived = [
            part
            for value in tf.nest.flatten(batch)
            for part in self._strategy.experimental_local_results(value)
        ]
        with tf.control_dependencies(arrived):
            waited = self._clock() - before
        self._wait.assign_add(waited)
        self._strategy.run(self.step, args=(batch,))

    def train_loop_end(self) -> dict[str, float]:
        """The step's means over the loop, and the seconds waited for input."""
        self.step.average_statistics()
        return self.step.means() | {"input_wait_seconds": float(self._wait.numpy())}


def _python_clock() -> tf.Tensor:
    return tf.ensure_shape(tf.numpy_function(time.monotonic, [], tf.float64), [])
