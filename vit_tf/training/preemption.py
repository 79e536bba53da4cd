"""SIGTERM and Ctrl-C: finish the loop that is running, save, leave."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import tensorflow as tf


class Preempted(SystemExit):
    """Raised after the state was saved because the process was asked to stop; exit status 0."""


class StopRequest:
    """Remembers that this process was asked to stop."""

    def __init__(self) -> None:
        self.signal: str | None = None
        self._total: tf.types.experimental.PolymorphicFunction | None = None

    def seen_by_any_worker(self, strategy: tf.distribute.Strategy) -> bool:
        """Whether any worker was asked to stop, so that all leave at the same step."""
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return self.signal is not None
        if self._total is None:
            self._total = tf.function(lambda asked: sum_over_replicas(strategy, asked))
        return bool(self._total(tf.constant(1.0 if self.signal else 0.0)) > 0)


def sum_over_replicas(strategy: tf.distribute.Strategy, value: tf.Tensor) -> tf.Tensor:
    """Sum of a scalar that each process has its own of, over all replicas."""
    values = strategy.run(tf.identity, args=(value,))
    return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[StopRequest]:
    """Turns SIGTERM and the first Ctrl-C into a request to stop; a second Ctrl-C interrupts.

    Python hands signals over between calls into TensorFlow, which take about two seconds in
    training, and as long as `RunConfig.steps_per_loop` steps where several workers have to agree.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # Python delivers signals to the main thread alone
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if request.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = signal.Signals(number).name
        print(f"{request.signal}: saving after the steps under way ...", flush=True)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
