"""The record stream of every worker: which records, in which order, held in memory or not."""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from vit_tf.data.dealing import Dealing
from vit_tf.data.indexed_stream import IndexedStream
from vit_tf.data.record_order import RecordOrder
from vit_tf.data.record_stream import RecordStream
from vit_tf.data.sampling_groups import (
    SamplingGroups,
    check_named_weights,
    class_groups,
    part_groups,
    read_labels,
    require_one_label,
)
from vit_tf.data.skipping import SkippedRecords, readable_segments
from vit_tf.data.sources import Source

_SEED_STEP = 1_000_003  # keeps the workers' own streams (shard_by="files") apart


@dataclasses.dataclass(frozen=True)
class Worker:
    """One input pipeline of `count`; it feeds `replicas / count` of the job's `replicas`."""

    id: int
    count: int
    replicas: int

    @classmethod
    def of(cls, context: tf.distribute.InputContext | None, batch_size: int) -> "Worker":
        """The worker that a strategy asks for; without one, the only worker with one replica.

        Raises:
          ValueError: the replicas do not divide the batch.
        """
        context = context or tf.distribute.InputContext()
        count = context.num_input_pipelines
        replicas = max(context.num_replicas_in_sync, count)
        if batch_size % replicas:
            below = batch_size // replicas * replicas
            works = [size for size in (below, below + replicas) if size]
            raise ValueError(
                f"batch_size {batch_size} cannot be divided among {replicas} replicas "
                f"({count} workers); the nearest that can: {' or '.join(map(str, works))}."
            )
        return cls(context.input_pipeline_id, count, replicas)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """What an `Input` was asked to show how often and in which order; see its arguments.

    Raises:
      ValueError: a value is unknown, or two do not go together.
    """

    training: bool
    shuffle: str
    shuffle_window: int | None
    seed: int
    repeats: int
    class_weights: str | Sequence[float] | None
    shard_by: str
    cache: bool

    def __post_init__(self):
        check_choice("shard_by", self.shard_by, ("examples", "files"))
        check_choice("shuffle", self.shuffle, ("window", "global"))
        if isinstance(self.class_weights, str):
            check_named_weights(self.class_weights)
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, got {self.repeats}")
        if self.shuffle_window is not None and self.shuffle_window < 1:
            raise ValueError(f"shuffle_window must be at least 1, got {self.shuffle_window}")
        if not self.training and (self.repeats > 1 or self.class_weights is not None):
            raise ValueError(
                "Evaluation shows every example once: repeats and class_weights are for training"
            )
        if self.training and self.shuffle == "global" and self.shuffle_window is not None:
            raise ValueError("shuffle = 'global' has no window; leave shuffle_window out")

    def check_source(self, source: Source) -> None:
        """Raises ValueError if the weights of a source's parts do not go with the rest."""
        weighted = [
            name
            for name, weights in (
                ("class_weights", self.class_weights),
                (f"weights of {source.name}", source.weights),
            )
            if weights is not None
        ]
        if not self.training:
            return
        if self.class_weights is not None:
            require_one_label(source, "class_weights")
        if len(weighted) > 1:
            raise ValueError(f"{' and '.join(weighted)} cannot both say what is shown how often")
        if weighted and self.shuffle != "global":
            raise ValueError(f"{weighted[0]} need Input.shuffle = 'global', got {self.shuffle!r}")
        if self.shard_by == "files" and (weighted or self.repeats > 1):
            name = weighted[0] if weighted else "repeats"
            raise ValueError(f"{name} need Input.shard_by = 'examples', got 'files'")


class WorkerStreams:
    """The streams that workers read, made when they are first asked for.

    Args:
      source: which records there are.
      sampling: which are shown, and in which order.
      batch_size: the global batch.
      skipped: where corrupt records are noted and left out; None lets reading them fail.
    """

    def __init__(
        self,
        source: Source,
        sampling: Sampling,
        batch_size: int,
        skipped: SkippedRecords | None,
    ):
        sampling.check_source(source)
        self._source = source
        self._sampling = sampling
        self._batch_size = batch_size
        self._skipped = skipped
        if skipped is None:
            self._segments, self._first_indices = source.segments, source.first_indices
        else:
            self._segments, self._first_indices = readable_segments(source, skipped)
        self._streams: dict[tuple[int, int], RecordStream] = {}

    @property
    def num_records(self) -> int:
        """All records that can be read."""
        return sum(segment.num_records for segment in self._segments)

    def of(self, worker: Worker) -> RecordStream:
        """The records that a worker reads; kept, since it may hold them in memory.

        Raises:
          ValueError: there are fewer files than workers, or reading the records to hold them or
            for their labels failed.
        """
        by_files = self._sampling.shard_by == "files"
        worker_id, count = (worker.id, worker.count) if by_files else (0, 1)
        if len(self._segments) < count:
            raise ValueError(
                f"{self._source.name} has {len(self._segments)} files for {count} workers: "
                "write more shards or set Input.shard_by = 'examples'."
            )
        if (worker_id, count) not in self._streams:
            stream = self._make(worker_id, count)
            if self._sampling.cache:
                self._load(stream)
            self._streams[worker_id, count] = stream
        return self._streams[worker_id, count]

    def records(
        self, worker: Worker, start_step: int, turn: int = 0, turns: int = 1
    ) -> tf.data.Dataset:
        """The worker's `(position, index, serialized)`; positions count its stream's records.

        `turn` and `turns` select steps as in `Dealing`; all are there by default.
        """
        by_files, stream = self._sampling.shard_by == "files", self.of(worker)
        if by_files:
            share = self._batch_size // worker.count
            dealing = Dealing(share, 0, 1, worker.replicas // worker.count)
        else:
            in_turn = self._sampling.repeats > 1
            dealing = Dealing(
                self._batch_size, worker.id, worker.count, worker.replicas, in_turn, turn, turns
            )
        records = stream.dealt(start_step, dealing, self._sampling.training)
        if not by_files:
            return records
        # Workers with streams of their own must not draw the same augmentations.
        return records.map(lambda p, *record: (p * worker.count + worker.id, *record))

    def describe_damage(self, stream: RecordStream, error: tf.errors.OpError) -> str:
        """A sentence about the first corrupt record of a stream that could not be read."""
        try:
            for index, corrupt in stream.damage():
                return bad_record_sentence(self._source.locate(index), str(corrupt))
        except tf.errors.NotFoundError as gone:
            return (
                f"a file of {self._source.name} that was there at the start is missing: "
                f"{gone.message}. Put it back or write the dataset again, and start again"
            )
        return f"{self._source.name} cannot be read: {error.message}"

    def _make(self, worker_id: int, count: int) -> RecordStream:
        where = {
            "segments": self._segments[worker_id::count],
            "first_indices": self._first_indices[worker_id::count],
            "by_offset": self._source.scattered or self._segments != self._source.segments,
        }
        sampling = self._sampling
        seed = sampling.seed + _SEED_STEP * worker_id
        stream = RecordStream(
            **where, seed=seed, window=sampling.shuffle_window, repeats=sampling.repeats
        )
        if sampling.shuffle == "window" or not sampling.training:
            return stream
        order = RecordOrder(stream.num_records, seed, sampling.repeats, self._groups(stream))
        return IndexedStream(**where, order=order)

    def _groups(self, stream: RecordStream) -> SamplingGroups | None:
        """Classes or parts of the source that have weights; `stream` holds all records."""
        source, class_weights = self._source, self._sampling.class_weights
        if class_weights is None:
            return None if source.weights is None else part_groups(source, stream.indices)
        try:
            indices, labels = read_labels(source, stream)
        except tf.errors.OpError as error:
            raise ValueError(self.describe_damage(stream, error)) from error
        for index in indices[labels < 0]:
            location = source.locate(int(index))
            problem = f"no label in 0..{source.num_classes - 1}"
            if self._skipped is None:
                raise ValueError(bad_record_sentence(location, problem))
            self._skipped.add(location, problem)
        return class_groups(labels, class_weights, source.class_names, source.num_classes)

    def _load(self, stream: RecordStream) -> None:
        try:
            stream.load()
        except tf.errors.OpError as error:
            raise ValueError(self.describe_damage(stream, error)) from error


def bad_record_sentence(location: str, problem: str) -> str:
    """What is wrong with a record, and what can be done about it."""
    return (
        f"{location}: {problem}. Fix or remove it, or set Input.on_bad_record = 'skip' "
        "to skip and count such records."
    )


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raises ValueError unless a value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, got {value!r}")
