"""SIGTERM, Ctrl-C and notices of maintenance: finish the steps under way, save, leave."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import tensorflow as tf

from vit_tf.training.maintenance import watch_for_maintenance

# Exit statuses. "Start me again" is that of sysexits.h for a failure that will pass; supervisors
# know it (systemd: RestartForceExitStatus=75). A shell's for what Ctrl-C ended is 128 + SIGINT.
START_AGAIN = os.EX_TEMPFAIL
INTERRUPTED = 128 + signal.SIGINT


class Preempted(SystemExit):
    """Raised after the state was saved because the process was asked to stop.

    The exit status is `START_AGAIN`, or `INTERRUPTED` if a person asked with Ctrl-C.
    """


class StopRequest:
    """Remembers that this process was asked to stop, and by what."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._by_person = False
        self._total: tf.types.experimental.PolymorphicFunction | None = None

    def ask(self, reason: str, by_person: bool = False) -> None:
        """Asks the process to stop; says so the first time."""
        self._by_person |= by_person
        if self.reason is None:
            print(f"{reason}: saving after the steps under way ...", flush=True)
        self.reason = reason

    def exit_status(self, strategy: tf.distribute.Strategy) -> int | None:
        """The status to leave with if any worker was asked to stop, so that all leave together.

        Returns:
          None to go on. Where a person stopped one worker, none of them is to start again.
        """
        asked, by_person = self.reason is not None, self._by_person
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            if self._total is None:
                self._total = tf.function(lambda own: sum_over_replicas(strategy, own))
            asked, by_person = self._total(tf.constant([asked, by_person], tf.float32)).numpy() > 0
        if not asked:
            return None
        return INTERRUPTED if by_person else START_AGAIN


def sum_over_replicas(strategy: tf.distribute.Strategy, value: tf.Tensor) -> tf.Tensor:
    """Sum of a value that each process has its own of, over all replicas."""
    values = strategy.run(tf.identity, args=(value,))
    return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)


@contextlib.contextmanager
def catch_stop_requests(tpu: bool = False) -> Iterator[StopRequest]:
    """Turns SIGTERM, the first Ctrl-C and a notice of maintenance into a request to stop.

    A second Ctrl-C interrupts. Python hands signals over between calls into TensorFlow, which take
    about two seconds in training, and as long as `RunConfig.steps_per_loop` steps where several
    workers have to agree.

    Args:
      tpu: whether the run is on a TPU, which notices of maintenance are always looked for on.
    """
    request = StopRequest()
    with watch_for_maintenance(request.ask, tpu):
        if threading.current_thread() is not threading.main_thread():
            yield request  # Python delivers signals to the main thread alone
            return

        def handle(number: int, frame: FrameType | None) -> None:
            if request.reason and number == signal.SIGINT:
                raise KeyboardInterrupt
            request.ask(signal.Signals(number).name, by_person=number == signal.SIGINT)

        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, handle) for number in numbers}
        try:
            yield request
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
