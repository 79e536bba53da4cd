"""Batches made by the workers of a tf.data service, the same and in the same order as made here.

A dispatcher and any number of workers (`tools/data_service.py`) decode and augment for training
processes. Of W workers each makes every W-th step, and a training process takes them in order.
"""

import re
import time
import uuid
from collections.abc import Callable

import tensorflow as tf
from absl import logging

from vit_tf.data.op_registry import require
from vit_tf.data.service_servers import (
    ANSWER_SECONDS,
    WORKER_ADDRESS_FILE,
    known_workers,
    reachable,
)
from vit_tf.data.service_watch import Watch

MakeBatches = Callable[[int, int], tf.data.Dataset]


class DataService:
    """A running tf.data service, as a training process sees it.

    Args:
      address: the dispatcher's, `"grpc://host:port"`.

    Raises:
      ValueError: the address is not of that form.
    """

    def __init__(self, address: str):
        match = re.fullmatch(r"grpc://([^/\s]+:\d+)", address)
        if match is None:
            raise ValueError(
                "Input.service must be the address of a tf.data service's dispatcher, written "
                f"grpc://host:port, got {address!r}"
            )
        self.address = address
        self._host_port = match[1]
        self._watch: Watch | None = None

    def distribute(
        self,
        make_batches: MakeBatches,
        start_step: int,
        consumer: int = 0,
        num_consumers: int = 1,
        job: str | None = None,
    ) -> tf.data.Dataset:
        """One consumer's batches of an endless stream of steps, made by the service.

        All consumers read a step from the same service worker (coordinated reads); each worker has
        a job of its own, since one job of several workers hands out their steps in any order.
        Workers that join later are left out until the next start. When one is lost, so are its
        steps, and reading fails within about half a minute.

        Args:
          make_batches: from `turn` and `turns` makes pairs of a step (int64 scalar) and a batch, a
            dict with static shapes: in order those of all steps from `start_step` on that are
            `turn` modulo `turns`, of each step one for every consumer.
          start_step: the first step.
          consumer: number of the consumer that reads the result.
          num_consumers: how many there are.
          job: a name that the consumers share and no earlier start had; needed if there are
            several.

        Returns:
          A dataset of the consumer's batches, step by step.

        Raises:
          ConnectionError: no dispatcher or no worker answers.
          ValueError: several consumers without `job`.
        """
        if job is None and num_consumers > 1:
            raise ValueError(
                f"{num_consumers} training workers that read from {self.address} must know that "
                "they belong together: give all of them the same job, a name that no earlier "
                "start used (Estimator does)"
            )
        job = f"vit_tf-{job or uuid.uuid4().hex}-from-{start_step}"
        workers = sorted(self.workers())
        logging.info("tf.data service %s: workers %s", self.address, ", ".join(workers))
        self._watch = Watch(workers, self._host_port)
        of_workers = [
            self._read(
                _made_by(worker, make_batches(turn, len(workers))),
                f"{job}-turn-{turn}",
                consumer,
                num_consumers,
            )
            for turn, worker in enumerate(workers)
        ]
        _, spec = make_batches(0, 1).element_spec
        return _in_order(of_workers, start_step, spec, self._watch.loss_file)

    def _read(
        self, made: tf.data.Dataset, job: str, consumer: int, num_consumers: int
    ) -> tf.data.Dataset:
        service = tf.data.experimental.service
        service.register_dataset(self.address, made, dataset_id=job)
        return service.from_dataset_id(
            service.ShardingPolicy.OFF,
            self.address,
            job,
            made.element_spec,
            job_name=job,
            consumer_index=consumer,
            num_consumers=num_consumers,
        )

    def workers(self) -> list[str]:
        """Addresses (`host:port`) of the workers that can be reached; waits for the first.

        Raises:
          ConnectionError: the dispatcher does not answer within 20 seconds, or it has no worker
            that does.
        """
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            known = known_workers(self._host_port)
            found = reachable(known)
            if found:
                return found
            if time.monotonic() > deadline:
                lost = f" (not reachable: {', '.join(known)})" if known else ""
                raise ConnectionError(
                    f"the tf.data service {self.address} has no worker{lost}. Start some: python "
                    f"tools/data_service.py --mode=worker --dispatcher={self._host_port}"
                )
            time.sleep(0.5)

    def problem(self) -> str | None:
        """What the service lost since `distribute`, in a sentence; None if it is well."""
        return self._watch and self._watch.loss()


def _made_by(worker: str, batches: tf.data.Dataset) -> tf.data.Dataset:
    """The batches, if it is this worker that runs the dataset; else idle answers for ever.

    An idle answer has step -1 and no examples.
    """
    step, batch = batches.element_spec
    nothing = {name: tf.zeros([0, *part.shape[1:]], part.dtype) for name, part in batch.items()}
    idle = tf.data.Dataset.from_tensors((tf.constant(-1, step.dtype), nothing)).repeat()

    def run(_: tf.Tensor) -> tf.data.Dataset:
        here = tf.io.read_file(WORKER_ADDRESS_FILE) == worker
        everything, none = tf.constant(-1, tf.int64), tf.constant(0, tf.int64)
        return batches.take(tf.where(here, everything, none)).concatenate(idle)

    options = tf.data.Options()
    options.deterministic = True
    return tf.data.Dataset.range(1).flat_map(run).with_options(options)


def _in_order(
    of_workers: list[tf.data.Dataset],
    start_step: int,
    spec: dict[str, tf.TensorSpec],
    loss_file: str,
) -> tf.data.Dataset:
    """Batches by step, of workers that take turns."""

    @tf.autograph.experimental.do_not_convert
    def is_batch(step: tf.Tensor, _: dict[str, tf.Tensor]) -> tf.Tensor:
        # Idle answers come while the worker at work is not ready, or is no more. The name depends
        # on the step, or the look at the file would count as a constant and be taken once.
        name = tf.where(step < 0, loss_file, "ram://")
        well = (step >= 0) | (tf.size(tf.io.matching_files(name)) == 0)
        one = require(well, "a tf.data service worker was lost with its batches")
        return step * tf.cast(one, tf.int64) >= 0

    @tf.autograph.experimental.do_not_convert
    def check(expected: tf.Tensor, found: tuple) -> dict[str, tf.Tensor]:
        step, batch = found
        one = require(step == expected, "a tf.data service worker was started anew meanwhile")
        batch = {**batch, "index": batch["index"] * tf.cast(one, tf.int64)}
        return {name: tf.ensure_shape(part, spec[name].shape) for name, part in batch.items()}

    steps = tf.data.Dataset.range(start_step, tf.int64.max)
    batches = [batches.filter(is_batch) for batches in of_workers]
    in_turn = tf.data.Dataset.choose_from_datasets(
        batches, steps.map(lambda step: step % len(batches)), stop_on_empty_dataset=True
    )
    return tf.data.Dataset.zip(steps, in_turn).map(check)
