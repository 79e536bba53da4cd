"""Which elements of every global batch go to which worker, and in which order."""

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Dealing:
    """One worker's part of a stream that all workers share.

    Usually a replica takes consecutive elements of a global batch. Repeated examples are dealt one
    by one in turn, as by DeiT's sampler (samplers.py), so that no replica sees an image's copies
    next to each other.

    Attributes:
      batch_size: the global batch.
      worker: number of the worker.
      num_workers: how many there are.
      num_replicas: replicas of all workers, a multiple of `num_workers`.
      in_turn: deal one by one.
      turn: of the steps only those that are `turn` modulo `turns` are there.
      turns: 1 leaves every step.
    """

    batch_size: int
    worker: int
    num_workers: int
    num_replicas: int
    in_turn: bool = False
    turn: int = 0
    turns: int = 1

    @property
    def share(self) -> int:
        """The worker's elements of a global batch."""
        return self.batch_size // self.num_workers

    @property
    def _local_replicas(self) -> int:
        return self.num_replicas // self.num_workers

    def first_element(self, start_step: int) -> int:
        """Number of the worker's first element that belongs to a step from `start_step` on."""
        return (start_step - self.turn + self.turns - 1) // self.turns * self.share

    def position(self, element: tf.Tensor) -> tf.Tensor:
        """Where in the global stream the worker's elements of some numbers stand."""
        step, place = element // self.share * self.turns + self.turn, element % self.share
        if not self.in_turn:
            return step * self.batch_size + self.worker * self.share + place
        of_replica = self.batch_size // self.num_replicas
        replica = self.worker * self._local_replicas + place // of_replica
        return step * self.batch_size + place % of_replica * self.num_replicas + replica

    def deal(self, records: tf.data.Dataset) -> tf.data.Dataset:
        """The worker's elements of a dataset of `(position, index, serialized)`.

        The dataset begins with a global batch.
        """
        if self.num_workers > 1 or self.turns > 1:
            records = records.filter(lambda position, *_: self._takes(position))
        if self.in_turn and self._local_replicas > 1:
            records = records.batch(self.share, drop_remainder=True)
            records = records.map(lambda *parts: tuple(self._by_replica(p) for p in parts))
            records = records.unbatch()
        return records

    def _takes(self, position: tf.Tensor) -> tf.Tensor:
        step, place = position // self.batch_size, position % self.batch_size
        on_turn = step % self.turns == self.turn
        if self.in_turn:
            return on_turn & (place % self.num_replicas // self._local_replicas == self.worker)
        return on_turn & (place // self.share == self.worker)

    def _by_replica(self, part: tf.Tensor) -> tf.Tensor:
        """Elements dealt in turn, put into the order of the replicas' batches."""
        return tf.reshape(tf.transpose(tf.reshape(part, [-1, self._local_replicas])), [-1])
