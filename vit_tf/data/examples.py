"""One record made into what a batch holds: decoded, preprocessed, or masked where that fails."""

import numpy as np
import tensorflow as tf

from vit_tf.data import bad_records
from vit_tf.data.preprocess import Preprocess
from vit_tf.data.skipping import SkippedRecords
from vit_tf.data.sources import Source
from vit_tf.data.targets import Targets

Example = dict[str, tf.Tensor]


class ExampleMaker:
    """Makes the examples of one source (TensorFlow graph code).

    Args:
      source: which records there are.
      preprocess: what is done to their images.
      seed: of what `preprocess` draws, together with a record's position; None draws nothing.
      skipped: where records are noted that cannot be made into an example, which then gets
        mask 0; None lets them fail.

    Attributes:
      targets: how an example's labels are given.

    Raises:
      ValueError: images or labels have no fixed shape after the preprocessing.
    """

    def __init__(
        self,
        source: Source,
        preprocess: Preprocess,
        seed: int | None,
        skipped: SkippedRecords | None,
    ):
        self._source = source
        self._preprocess = preprocess
        self.targets = Targets(source, preprocess)
        self._seed = seed
        self._skipped = skipped

    def __call__(self, position: tf.Tensor, index: tf.Tensor, serialized: tf.Tensor) -> Example:
        """The example of a record.

        Args:
          position: in the stream, int64 scalar.
          index: number of the record in the split, int64 scalar.
          serialized: the record.

        Returns:
          `image`, `label`, `mask` and `index`, as `Input.__call__` describes them for a batch,
          the image before `Preprocess.on_batch`.
        """
        if self._skipped is None:
            return self._make(position, index, serialized)
        return self._make_or_mask(position, index, serialized)

    def padding(self, index: tf.Tensor | int = -1) -> Example:
        """An example that counts for nothing."""
        return {
            "image": tf.zeros(self.targets.image_shape, self._preprocess.example_dtype),
            "label": tf.zeros(self.targets.spec.shape, self.targets.spec.dtype),
            "mask": tf.zeros([]),
            "index": tf.cast(index, tf.int64),
        }

    def problem(self, position: tf.Tensor, index: tf.Tensor, serialized: tf.Tensor) -> str:
        """Why a record gave no example; tried again eagerly, where errors are plainer."""
        try:
            self._make(position, index, serialized)
        except (tf.errors.OpError, ValueError) as error:
            source, place = self._source.part_of(int(index))
            return bad_records.describe(source, place, serialized.numpy(), error)
        return "it failed, but not when it was tried again: is the storage or memory sound?"

    @tf.autograph.experimental.do_not_convert
    def _make(self, position: tf.Tensor, index: tf.Tensor, serialized: tf.Tensor) -> Example:
        features = self._source.parse(serialized, index)
        # Looked up in the list of classes, a label outside of it is an error: one op an example.
        classes = tf.constant(np.arange(self._source.num_classes, dtype=np.int32))
        label = features["label"] = tf.gather(classes, features["label"])
        if self._seed is not None:
            features["seed"] = tf.stack([tf.constant(self._seed, tf.int64), position])
        preprocessed = self._preprocess.on_example(features)
        return {
            "image": preprocessed["image"],
            "label": self.targets(label, preprocessed.get("label", label)),
            "mask": tf.ones([]),
            "index": index,
        }

    def _make_or_mask(
        self, position: tf.Tensor, index: tf.Tensor, serialized: tf.Tensor
    ) -> Example:
        """The example, or if it cannot be made a masked one in its place: positions stay."""
        record = tf.data.Dataset.from_tensors((position, index, serialized))
        attempt = record.map(self._make).ignore_errors()
        masked = tf.data.Dataset.from_tensors(self.padding(index))
        example = attempt.concatenate(masked).take(1).get_single_element()
        example["mask"] = tf.cond(
            example["mask"] > 0,
            lambda: tf.ones([]),
            lambda: tf.ensure_shape(
                tf.py_function(self._note, [position, index, serialized], tf.float32), []
            ),
        )
        return example

    def _note(self, position: tf.Tensor, index: tf.Tensor, serialized: tf.Tensor) -> tf.Tensor:
        problem = self.problem(position, index, serialized)
        self._skipped.add(self._source.locate(int(index)), problem)
        return tf.zeros([])
