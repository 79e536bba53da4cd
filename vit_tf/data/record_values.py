"""One value of every record, read before anything is trained or evaluated."""

import numpy as np
import tensorflow as tf

from vit_tf.data.record_stream import RecordStream
from vit_tf.data.sources import Source


def read_values(
    source: Source, stream: RecordStream, name: str, missing: tf.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Reads every record of a stream once for a scalar.

    Args:
      source: what the records are of.
      stream: which are read.
      name: entry of what `source.parse` gives.
      missing: what records get that cannot be parsed.

    Returns:
      Indices, int64 `[num_records]`, and values, `[num_records]`, in file order.

    Raises:
      tf.errors.OpError: a file is damaged.
    """

    def value(index: tf.Tensor, serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        record = tf.data.Dataset.from_tensors((serialized, index))
        parsed = record.map(lambda *parts: source.parse(*parts)[name]).ignore_errors()
        found = parsed.concatenate(tf.data.Dataset.from_tensors(missing)).take(1)
        return index, found.get_single_element()

    pairs = stream.in_file_order().map(value, num_parallel_calls=tf.data.AUTOTUNE)
    indices, values = pairs.batch(stream.num_records).get_single_element()
    return indices.numpy(), values.numpy()
