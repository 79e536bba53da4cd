"""Watching the workers of a tf.data service: TensorFlow waits for a lost one without a word."""

import threading
import time
import uuid
from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from vit_tf.data.service_servers import free_port, reachable, start_worker

_PERIOD_SECONDS = 5.0
_STAND_IN_SECONDS = 60.0


class Watch:
    """Looks every few seconds, in a daemon thread, whether all workers of a job are there.

    Args:
      workers: their addresses, `host:port`.
      dispatcher: its address, `host:port`.

    Attributes:
      loss_file: a file in this process' memory that exists once a worker was lost; a pipeline
        can look for it without calling Python.
    """

    def __init__(self, workers: Sequence[str], dispatcher: str):
        self.loss_file = f"ram://vit_tf/lost/{uuid.uuid4().hex}"
        self._workers = list(workers)
        self._dispatcher = dispatcher
        tf.io.gfile.makedirs("ram://vit_tf/lost")
        threading.Thread(target=self._look, name="data_service_watch", daemon=True).start()

    def loss(self) -> str | None:
        """What was lost, in a sentence that says what to do; None if all workers are there."""
        lost = sorted(set(self._workers) - set(reachable(self._workers)))
        if not lost:
            return None
        return (
            f"the tf.data service grpc://{self._dispatcher} lost {', '.join(lost)} and with it the "
            "batches that were made there. Start training again: it goes on from its last "
            "checkpoint with the workers that are there by then"
        )

    def _look(self) -> None:
        while True:
            time.sleep(_PERIOD_SECONDS)
            loss = self.loss()
            if loss:
                logging.error(loss)
                with tf.io.gfile.GFile(self.loss_file, "w") as file:
                    file.write(loss)
                if not reachable(self._workers):
                    self._stand_in()
                return

    def _stand_in(self) -> None:
        """Gives the answers at which readers look for the file, where nobody else is left to.

        Without any worker a reader inside TensorFlow waits for one, and cannot be interrupted.
        """
        try:
            server = start_worker(self._dispatcher, "localhost", free_port())
        except (OSError, tf.errors.OpError) as error:
            logging.error("%s; training waits in vain: stop it", error)
            return
        time.sleep(_STAND_IN_SECONDS)
        server.stop()
