"""A source whose labels come from a file instead of its records, such as ImageNet-ReaL's."""

import hashlib
import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from vit_tf import planning
from vit_tf.data.label_file import LabelFile, read_label_file
from vit_tf.data.record_stream import RecordStream
from vit_tf.data.record_values import read_values
from vit_tf.data.skipping import SkippedRecords, readable_segments
from vit_tf.data.sources import Source
from vit_tf.data.tfrecord import Segment

_NAMED_RECORDS = 5
_UNREADABLE = b"\0"  # no file's name


class RelabelledSource(Source):
    """Records of another source with the labels that a file has for their file names.

    Made for the reassessed labels of ImageNet's validation split (ReaL; Beyer et al., 2020, "Are
    we done with ImageNet?"), `real.json` of github.com/google-research/reassessed-imagenet, where
    an image has any number of labels. Their numbers follow the sorted WordNet ids, as those of
    TFDS's `imagenet2012` do, and of the common shards after their `label_offset` of 1.

    Names are compared without folders if that tells the file's entries apart, else as they are.
    All records are read once for their names, and every one must be in the file; those that
    cannot be read are left to `Input.on_bad_record`.

    Args:
      source: whose records; they must have file names.
      labels: the file, `.json` or `.csv`; see `label_file.read_label_file`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not right, has nothing for some records, or the same for different
        ones; the first ones and their number are named.
    """

    def __init__(self, source: Source, labels: str):
        path = os.path.expanduser(str(labels))
        if "filename" not in source.features:
            raise ValueError(
                f"the records of {source.name} have no file names to find in {path}. Foreign "
                "records: name the feature, such as TFRecordSource.features = {..., 'filename': "
                "'image/filename'}; a TFDS dataset needs image/filename, file_name or filename"
            )
        if planning.is_planned() and not tf.io.gfile.exists(path):
            planning.note(
                "labels", path, "put the file there, or name it with RelabelledSource.labels"
            )
            content = LabelFile({}, multi_label=True)
        else:
            planning.note("labels", path)
            content = read_label_file(path, source.num_classes, source.class_names)
        super().__init__(
            name=f"{source.name}, labels of {os.path.basename(path)}",
            segments=source.segments,
            features=source.features,
            num_classes=source.num_classes,
            class_names=source.class_names,
            multi_label=content.multi_label,
        )
        self.parts, self.weights = source.parts, source.weights
        self.scattered = source.scattered
        self._source = source
        if planning.is_planned():
            return  # the records stay unread
        of_records = _labels_of_records(source, path, content.labels)
        counts = [len(of_record) for of_record in of_records]
        self._ends = tf.constant(np.cumsum(counts), tf.int64)
        self._counts = tf.constant(counts, tf.int64)
        self._labels = tf.constant([label for each in of_records for label in each], tf.int64)

    def parse(
        self, serialized: tf.Tensor, index: tf.Tensor | int | None = None
    ) -> dict[str, tf.Tensor]:
        """As the other source parses it, with the file's labels."""
        if index is None:
            raise ValueError(f"{self.name}: to parse a record its index is needed")
        parsed = self._source.parse(serialized, index)
        end, count = tf.gather(self._ends, index), tf.gather(self._counts, index)
        labels = self._labels[end - count : end]
        return {**parsed, "label": labels if self.multi_label else labels[0]}

    def labelling(self) -> dict[str, Any]:
        """See `Source.labelling`."""
        of_file = [self._counts.numpy(), self._labels.numpy()]
        digests = [hashlib.sha256(values.tobytes()).hexdigest() for values in of_file]
        return {**super().labelling(), "of_file": digests}


def _labels_of_records(
    source: Source, path: str, labels: Mapping[str, tuple[int, ...]]
) -> list[tuple[int, ...]]:
    """The labels of every record, in the source's order; those of unreadable ones are empty."""
    short = {posixpath.basename(name): of_file for name, of_file in labels.items()}
    whole_names = len(short) < len(labels)
    wanted = labels if whole_names else short
    found: list[tuple[int, ...]] = [()] * source.num_examples
    taken: dict[str, str] = {}
    missing, ambiguous = [], []
    for index, filename in zip(*_file_names(source), strict=True):
        if filename == _UNREADABLE:
            continue
        filename = filename.decode(errors="replace")
        name = filename if whole_names else posixpath.basename(filename)
        if name not in wanted:
            missing.append((index, filename or "no file name"))
        elif taken.setdefault(name, filename) != filename:
            ambiguous.append((index, f"{filename}, and {taken[name]}"))
        else:
            found[index] = wanted[name]
    if missing:
        raise ValueError(
            f"{path} has no labels for {len(missing):,} of the {source.num_examples:,} records of "
            f"{source.name} (its names are like {next(iter(labels))!r}), first:\n"
            f"{_first(source, missing)}"
        )
    if ambiguous:
        raise ValueError(
            f"{path} does not tell {len(ambiguous):,} records of {source.name} from others with "
            "the same name in another folder; name files with their folders. First:\n"
            f"{_first(source, ambiguous)}"
        )
    unlabelled = sum(not wanted[name] for name in taken)
    logging.info(
        "%s: labels for %d files, %d of them none; %d further entries are for files that the "
        "source does not have.",
        path,
        len(taken),
        unlabelled,
        len(wanted) - len(taken),
    )
    return found


def _first(source: Source, records: Sequence[tuple[int, str]]) -> str:
    """Lines about the first few of some records."""
    few = records[:_NAMED_RECORDS]
    return "\n".join(f"  {source.locate(int(index))}: {about}" for index, about in few)


def _file_names(source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Index and file name of every record; those that cannot be parsed are `_UNREADABLE`."""

    def read(segments: list[Segment], first_indices: list[int], by_offset: bool):
        stream = RecordStream(segments, first_indices, window=1, by_offset=by_offset)
        return read_values(source, stream, "filename", tf.constant(_UNREADABLE))

    try:
        return read(source.segments, source.first_indices, source.scattered)
    except tf.errors.OpError:  # a file is damaged: of what can be read, then
        return read(*readable_segments(source, SkippedRecords()), by_offset=True)
