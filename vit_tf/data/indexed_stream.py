"""Records by their number, in any order: nothing before a position is read to get there."""

import concurrent.futures
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from vit_tf.data import tfrecord
from vit_tf.data.dealing import Dealing
from vit_tf.data.record_order import RecordOrder
from vit_tf.data.record_stream import RecordStream

# Positions whose records are looked up together: the order's many small operations then cost
# about a microsecond a record.
_CHUNK = 1024
_INDEX_THREADS = 16


class IndexedStream(RecordStream):
    """A `RecordStream` whose training order is a `RecordOrder`: records are read one by one.

    Each worker reads its own records only, and the memory needed does not depend on how well
    records are mixed. Reading needs a seek a record: right for local disks, slow for buckets.
    Deterministic TensorFlow reads and decodes one record at a time, unless they are in memory.

    Args:
      segments: runs of records.
      first_indices: the global index of each segment's first record.
      order: which record stands at which position; counted through the segments.
      by_offset: as for `RecordStream`.
    """

    def __init__(
        self,
        segments: Sequence[tfrecord.Segment],
        first_indices: Sequence[int],
        order: RecordOrder,
        by_offset: bool = False,
    ):
        super().__init__(segments, first_indices, window=1, by_offset=by_offset)
        self.epoch_length = order.epoch_length
        self._order = order
        self._offsets = None

    def dealt(self, start_step: int, dealing: Dealing, training: bool = True) -> tf.data.Dataset:
        """As `RecordStream.dealt`; nothing before the step is read."""
        if not training:
            return super().dealt(start_step, dealing, training)
        if self._cached_records is None and self._offsets is None:
            self._offsets = _record_offsets(self.segments)
        first = dealing.first_element(start_step)
        elements = tf.data.Dataset.range(first, tf.int64.max, _CHUNK)

        def look_up(element: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            positions = dealing.position(element + tf.range(_CHUNK, dtype=tf.int64))
            return positions, self._order(positions)

        return (
            elements.map(look_up)
            .unbatch()
            .map(self._fetch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        )

    @tf.autograph.experimental.do_not_convert
    def _fetch(
        self, position: tf.Tensor, number: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        row = tf.searchsorted(self._table["cached_at"], number[tf.newaxis], side="right")[0] - 1
        segment = {key: tf.gather(column, row) for key, column in self._table.items()}
        index = segment["first_index"] + number - segment["cached_at"]
        if self._cached_records is not None:
            return position, index, tf.gather(self._cached_records, number)
        begin, end = self._offsets["begin"][number], self._offsets["end"][number]
        buffer_bytes = tf.maximum(end - begin, 16)
        record = tfrecord.read_segment(segment["path"], 1, 0, begin, buffer_bytes)
        return position, index, record.get_single_element()


def _record_offsets(segments: Sequence[tfrecord.Segment]) -> dict[str, tf.Tensor]:
    """Where every record begins and ends in its file."""
    with concurrent.futures.ThreadPoolExecutor(_INDEX_THREADS) as pool:
        bounds = list(pool.map(tfrecord.record_bounds, segments))
    return {
        "begin": tf.constant(np.concatenate([places[:-1] for places in bounds]), tf.int64),
        "end": tf.constant(np.concatenate([places[1:] for places in bounds]), tf.int64),
    }
