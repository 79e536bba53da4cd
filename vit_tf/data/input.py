"""From a source of encoded examples to batches: order, sharding by worker, padding, bad records."""

import math
from collections.abc import Sequence

import tensorflow as tf

from vit_tf.data.examples import ExampleMaker
from vit_tf.data.preprocess import Preprocess
from vit_tf.data.record_order import epoch_length
from vit_tf.data.service import DataService
from vit_tf.data.sized import fill_size
from vit_tf.data.skipping import SkippedRecords
from vit_tf.data.sources import Source
from vit_tf.data.worker_streams import (
    Sampling,
    Worker,
    WorkerStreams,
    bad_record_sentence,
    check_choice,
)

# What reading and decoding raise; `Input.diagnose` then says which record was at fault.
READ_ERRORS = (
    tf.errors.DataLossError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.FailedPreconditionError,
    tf.errors.UnknownError,
)


class Input:
    """Batches of preprocessed examples.

    Training is an endless stream of epochs, each showing every example once in an order that
    depends on (`seed`, epoch) alone; batches run across epoch borders. Evaluation shows every
    example exactly once, in file order, the last batch padded. Nothing depends on thread timing,
    `tf.random.set_seed` or (with `shard_by="examples"`) the number of workers.

    Args:
      source: where the encoded examples lie.
      preprocess: a `Preprocess` or its string. Evaluation allows no random ops.
      batch_size: the global batch, of all replicas of all workers.
      training: whether to shuffle and repeat.
      shuffle: `"window"`: files in random order, read through, their records mixed in a window.
        `"global"`: any order is equally likely, whatever the size of an epoch; each worker reads
        its own records only, by their places in the files (local disks; see `IndexedStream`).
        Weights of data sets or classes need it.
      shuffle_window: records in the shuffle window; None: a whole epoch, at most 50,000 records or
        512 MiB. Up to three windows are in memory.
      seed: of order and augmentation.
      repeats: repeated augmentation: this many differently augmented copies of each example of an
        epoch follow each other, dealt to the replicas in turn; an epoch keeps its length and
        shows as many fewer examples (DeiT's sampler; `record_order.epoch_length`).
      class_weights: `"balanced"`: training shows all classes equally often; `"square_root"`: as
        the square root of their number of examples; or the share of each class, in any unit.
        Reads all records once for their labels.
      on_bad_record: what becomes of records that cannot be used (a file that vanishes is an error):
        `"error"`, or `"skip"`: corrupt records are left out, undecodable images and
        labels out of range become examples with mask 0; all are warned of, counted and listed in
        `skipped`.
      cache: keep the encoded records in memory.
      shard_by: `"examples"`: each worker reads everything and keeps its share of every global
        batch, so that the workers' union is the one-worker batch. `"files"`: each worker reads its
        own files only.
      prefetch: batches prepared ahead.
      num_parallel_calls: examples preprocessed at a time.
      service: address of a tf.data service's dispatcher, `"grpc://host:port"`: its workers read,
        decode and augment instead of this process (for training). The batches are, bit for bit,
        those made here, whatever the number of its workers. They need the files under the same
        paths; see `DataService.distribute`.
      image_size: side of the images, or (height, width): what `{size}` in the string of
        `preprocess` stands for, see `fill_size`.

    Raises:
      ValueError: an argument does not fit; the message says which and what would.
    """

    def __init__(
        self,
        source: Source,
        preprocess: str | Preprocess,
        batch_size: int,
        training: bool,
        shuffle: str = "window",
        shuffle_window: int | None = None,
        seed: int = 0,
        repeats: int = 1,
        class_weights: str | Sequence[float] | None = None,
        on_bad_record: str = "error",
        cache: bool = False,
        shard_by: str = "examples",
        prefetch: int = tf.data.AUTOTUNE,
        num_parallel_calls: int = tf.data.AUTOTUNE,
        service: str | None = None,
        image_size: int | Sequence[int] | None = None,
    ):
        check_choice("on_bad_record", on_bad_record, ("error", "skip"))
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        sampling = Sampling(
            training, shuffle, shuffle_window, seed, repeats, class_weights, shard_by, cache
        )
        self.source = source
        if isinstance(preprocess, str):
            preprocess = Preprocess(fill_size(preprocess, image_size))
        self.preprocess = preprocess
        self.batch_size = batch_size
        self.training = training
        if self.preprocess.is_random and not training:
            raise ValueError(
                f"Evaluation cannot use random ops ({', '.join(self.preprocess.random_ops)}): "
                f"{self.preprocess}"
            )
        self.seed = seed
        self.service = None if service is None else DataService(service)
        if self.service is not None:
            _check_fits_service(training, on_bad_record, cache, shard_by)
        self._repeats = repeats
        self._shard_by = shard_by
        self._skip = on_bad_record == "skip"
        self._skipped = SkippedRecords()
        self._prefetch = prefetch
        self._num_parallel_calls = num_parallel_calls
        skipped = self._skipped if self._skip else None
        self._streams = WorkerStreams(source, sampling, batch_size, skipped)
        self._examples = ExampleMaker(source, self.preprocess, seed if training else None, skipped)
        self.image_shape = self._examples.targets.image_shape

    @property
    def num_classes(self) -> int:
        """Labels are in `[0, num_classes)`; so many entries have vectors of targets."""
        return self._examples.targets.num_classes

    @property
    def class_names(self) -> list[str] | None:
        """One name per class of the source, if it knows them and has no more than `num_classes`."""
        names = self.source.class_names
        return names if names and len(names) <= self.num_classes else None

    def batch_spec(self, batch_size: int) -> dict[str, tf.TensorSpec]:
        """What a batch of so many examples is, found without any record; see `__call__`."""
        label = self._examples.targets.spec
        specs = {
            "image": (self.image_shape, tf.float32),
            "label": (label.shape, label.dtype),
            "mask": ((), tf.float32),
            "index": ((), tf.int64),
        }
        return {
            name: tf.TensorSpec([batch_size, *shape], dtype, name=name)
            for name, (shape, dtype) in specs.items()
        }

    @property
    def skipped(self) -> dict[str, str]:
        """What was skipped so far: reason by location (`<file> record <number>`)."""
        return self._skipped.reasons

    @property
    def examples_per_epoch(self) -> int:
        """Examples in an epoch, repeated ones counted; without corrupt ones that are skipped."""
        return epoch_length(self._streams.num_records, self._repeats)

    @property
    def steps_per_epoch(self) -> float:
        """Global batches in an epoch; not rounded, since batches run across epoch borders."""
        return self.examples_per_epoch / self.batch_size

    def eval_steps(self, num_workers: int = 1) -> int:
        """Global batches of one evaluation, the padded last one included."""
        if self._shard_by == "examples" or num_workers == 1:
            return math.ceil(self.examples_per_epoch / self.batch_size)
        share = self.batch_size // num_workers
        workers = [Worker(i, num_workers, num_workers) for i in range(num_workers)]
        return max(math.ceil(self._streams.of(worker).num_records / share) for worker in workers)

    def __call__(
        self,
        input_context: tf.distribute.InputContext | None = None,
        start_step: int = 0,
        job: str | None = None,
    ) -> tf.data.Dataset:
        """The batches of one worker.

        Args:
          input_context: as `strategy.distribute_datasets_from_function` passes it; None is one
            worker with one replica.
          start_step: the first batch is the one that step `start_step` (from 0) would have seen;
            nothing before it is decoded.
          job: with a service and several workers a name that they share and no earlier start had.

        Returns:
          A dataset of dicts: `image` float32 `[b, h, w, c]`, `label` int32 `[b]`, `mask` float32
          `[b]` (0 for padding and skipped records), `index` int64 `[b]` (the record's number in the
          split, -1 for padding). Of a multi-label source, `label` is float32 `[b, num_classes]`: 1
          for the classes that an example is labelled with, else 0; of any source it is the float
          vector that `preprocess` makes of it, if it does (`onehot(1000)`). `b` is the per-replica
          batch, always static: global batch / replicas, a worker's replicas taking consecutive
          elements.

        Raises:
          ValueError: the workers or replicas do not divide the batch, or files do not suffice for
            workers.
          ConnectionError: the service does not answer.
        """
        if start_step < 0:
            raise ValueError(f"start_step must not be negative, got {start_step}")
        worker = Worker.of(input_context, self.batch_size)
        if self.service is not None:
            batches = self._served(worker, start_step, job)
        else:
            batches = self._made_here(worker, start_step)
        if self.preprocess.example_dtype != tf.float32:
            batches = batches.map(
                lambda batch: {**batch, "image": self.preprocess.on_batch(batch["image"])},
                num_parallel_calls=self._num_parallel_calls,
                deterministic=True,
            )
        options = tf.data.Options()
        options.deterministic = True
        # Examples are what runs in parallel; splitting single ops too costs more than it gives.
        options.threading.max_intra_op_parallelism = 1
        options.experimental_optimization.map_and_batch_fusion = True
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return batches.prefetch(self._prefetch).with_options(options)

    def _made_here(self, worker: Worker, start_step: int) -> tf.data.Dataset:
        examples = self._streams.records(worker, start_step).map(
            self._examples, num_parallel_calls=self._num_parallel_calls, deterministic=True
        )
        if not self.training:
            steps = self.eval_steps(worker.count) - start_step
            total = steps * (self.batch_size // worker.count)
            padding = tf.data.Dataset.from_tensors(self._examples.padding()).repeat()
            examples = examples.concatenate(padding).take(total)
        return examples.batch(self.batch_size // worker.replicas, drop_remainder=True)

    def _served(self, worker: Worker, start_step: int, job: str | None) -> tf.data.Dataset:
        # One worker with all replicas sees every global batch in the order of the shares.
        everyone = Worker(0, 1, worker.replicas)
        share = self.batch_size // worker.count

        def make_batches(turn: int, turns: int) -> tf.data.Dataset:
            examples = self._streams.records(everyone, start_step, turn, turns).map(
                lambda position, *record: (
                    position // self.batch_size,
                    self._examples(position, *record),
                ),
                num_parallel_calls=self._num_parallel_calls,
                deterministic=True,
            )
            shares = examples.batch(share, drop_remainder=True)
            return shares.map(lambda steps, batch: (steps[0], batch)).prefetch(self._prefetch)

        shares = self.service.distribute(make_batches, start_step, worker.id, worker.count, job)
        replicas = worker.replicas // worker.count
        return shares if replicas == 1 else shares.rebatch(share // replicas, drop_remainder=True)

    def encoded(self) -> tf.data.Dataset:
        """What evaluation reads, before any preprocessing.

        Returns:
          A dataset of dicts in the order of the batches: `image` encoded bytes, `label`,
          `filename`, and `index`, the record's number in the split.
        """
        records = self._streams.records(Worker.of(None, self.batch_size), 0)
        return records.map(
            lambda _, index, record: {"index": index, **self.source.parse(record, index)}
        )

    def diagnose(
        self,
        start_step: int = 0,
        input_context: tf.distribute.InputContext | None = None,
        max_examples: int | None = None,
    ) -> str | None:
        """Finds the record that made reading fail, by walking the same stream again one by one.

        Args:
          start_step: where to begin: the last step known to have worked.
          input_context: of the worker that failed.
          max_examples: how far to walk; one epoch by default.

        Returns:
          A sentence naming file, record and what is wrong, or what the service lost; None if
          nothing makes reading fail.
        """
        service_problem = self.service and self.service.problem()
        if service_problem:
            return service_problem
        worker = Worker.of(input_context, self.batch_size)
        records = self._streams.records(worker, start_step)
        example = tf.function(self._examples, autograph=False)
        try:
            for record in records.take(max_examples or self.examples_per_epoch):
                if self._skip:
                    continue  # what a record holds cannot make reading fail, only reading it can
                try:
                    example(*record)
                except tf.errors.OpError:
                    problem = self._examples.problem(*record)
                    return bad_record_sentence(self.source.locate(int(record[1])), problem)
        except tf.errors.OpError as error:
            return self._streams.describe_damage(self._streams.of(worker), error)
        return None


def _check_fits_service(training: bool, on_bad_record: str, cache: bool, shard_by: str) -> None:
    """Raises ValueError for what cannot be left to a service, or need not be."""
    reasons = (
        (not training, "evaluation reads here: set it for training alone (train/Input.service)"),
        (on_bad_record == "skip", "on_bad_record = 'skip' cannot count what other processes skip"),
        (cache, "cache = True keeps the records in this process"),
        (shard_by == "files", "its workers share out the steps: leave shard_by = 'examples'"),
    )
    for unfit, reason in reasons:
        if unfit:
            raise ValueError(f"Input.service does not go with the rest: {reason}")
