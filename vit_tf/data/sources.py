"""Where encoded examples lie: what all sources have in common.

A source knows files, records and features. It knows nothing of what the images are used for.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from vit_tf.data import tfrecord

WRITE_HINT = "Write shards with `python tools/make_tfrecords.py` (see its --help)."


class Source:
    """Encoded, labelled images in TFRecord files.

    A record has a global `index` in the split: its place when all segments are read one after the
    other.

    Attributes:
      name: what logs and messages call this source.
      segments: runs of records, in split order; none is empty.
      num_classes: labels are in `[0, num_classes)`.
      class_names: one name per class, or None.
      features: the record's feature names of `"image"`, `"label"` and, where known, `"filename"`.
      parts: the sources that this one is made of, in order; none for most.
      weights: of each part its share of the training stream, or None: as many as it has.
      scattered: whether segments are short and far apart in their files.
      multi_label: whether an example has any number of labels, none included, instead of one.
      dataset: the data set's `"name"`, `"version"` and `"split"`, where they are known.
    """

    dataset: Mapping[str, str] = {}
    parts: Sequence["Source"] = ()
    weights: Sequence[float] | None = None
    scattered: bool = False

    def __init__(
        self,
        name: str,
        segments: Sequence[tfrecord.Segment],
        features: Mapping[str, str],
        num_classes: int,
        class_names: Sequence[str] | None = None,
        label_offset: int = 0,
        multi_label: bool = False,
    ):
        if class_names is not None and len(class_names) != num_classes:
            raise ValueError(f"{name}: {len(class_names)} class_names for {num_classes} classes")
        self.name = name
        self.segments = [segment for segment in segments if segment.num_records]
        self.features = dict(features)
        self.num_classes = num_classes
        self.class_names = list(class_names) if class_names is not None else None
        self.multi_label = multi_label
        self._label_offset = label_offset
        if not self.segments:
            raise ValueError(f"{name} holds no records. {WRITE_HINT}")

    @property
    def readable(self) -> bool:
        """Whether there are files; a source that is only planned with may have none."""
        return bool(self.segments[0].path)

    @property
    def num_examples(self) -> int:
        """Number of records that the split declares."""
        return sum(segment.num_records for segment in self.segments)

    @property
    def first_indices(self) -> list[int]:
        """The global index of each segment's first record."""
        counts = [segment.num_records for segment in self.segments]
        return list(itertools.accumulate(counts[:-1], initial=0))

    def part_of(self, index: int) -> tuple["Source", int]:
        """The source that a record comes from, if of others than itself, and its index there."""
        return self, index

    def parse(
        self, serialized: tf.Tensor, index: tf.Tensor | int | None = None
    ) -> dict[str, tf.Tensor]:
        """Splits a serialized `tf.train.Example` into its parts (TensorFlow graph code).

        Args:
          serialized: the record, scalar string.
          index: its global index, which sources that are made of others need.

        Returns:
          `image`: encoded bytes, scalar string. `label`: int64, counted from 0: a scalar, or
          `[labels]` of a multi-label source, where a record without the feature has none.
          `filename`: scalar string, empty where the record has none.
        """
        del index
        one_label = tf.io.FixedLenFeature([], tf.int64)
        labels = tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True)
        spec = {
            self.features["image"]: tf.io.FixedLenFeature([], tf.string),
            self.features["label"]: labels if self.multi_label else one_label,
        }
        if "filename" in self.features:
            spec[self.features["filename"]] = tf.io.FixedLenFeature([], tf.string, "")
        parsed = tf.io.parse_single_example(serialized, spec)
        filename = parsed[self.features["filename"]] if "filename" in self.features else ""
        label = parsed[self.features["label"]]
        return {
            "image": parsed[self.features["image"]],
            "label": label - self._label_offset if self._label_offset else label,
            "filename": tf.convert_to_tensor(filename),
        }

    def labelling(self) -> dict[str, Any]:
        """What the labels of given records depend on, as JSON can hold it.

        A subclass whose `parse` makes other labels adds what they depend on.
        """
        return {
            "features": self.features,
            "offset": self._label_offset,
            "classes": self.num_classes,
            "multi_label": self.multi_label,
        }

    def locate(self, index: int) -> str:
        """Where a record lies, for messages: `<file> record <number in the file, from 0>`."""
        first = index
        for segment in self.segments:
            if 0 <= first < segment.num_records:
                return f"{segment.path} record {segment.first_record + first}"
            first -= segment.num_records
        raise IndexError(f"{self.name} has {self.num_examples} records, not an index {index}")


def content_of(folder: str, limit: int = 6) -> str:
    """The first names in a folder, for messages."""
    entries = sorted(entry.rstrip("/") for entry in tf.io.gfile.listdir(folder))
    more = f" and {len(entries) - limit} more" if len(entries) > limit else ""
    return (", ".join(entries[:limit]) + more) or "nothing"
