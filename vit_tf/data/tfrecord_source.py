"""Foreign TFRecord files: any that hold `tf.train.Example`s with an image and a label."""

import concurrent.futures
import dataclasses
import os
from collections.abc import Mapping, Sequence

import tensorflow as tf
from absl import logging
from google.protobuf import message

from vit_tf import planning
from vit_tf.data import tfrecord
from vit_tf.data.slices import slice_segments
from vit_tf.data.sources import Source, content_of

_COUNT_THREADS = 16


class TFRecordSource(Source):
    """TFRecord files written by others, with a declared feature map.

    Args:
      pattern: a glob such as `/data/imagenet/train-*-of-01024`; files are taken in sorted order.
      num_classes: labels are in `[0, num_classes)` after `label_offset` is subtracted.
      features: names of the `image` and `label` features (and `filename`, optionally) in a record.
        The default is what the common ImageNet shards use.
      class_names: a list, or the path of a text file with one name a line.
      label_offset: subtracted from every stored label; 1 for the common ImageNet shards.
      num_examples: how many records the files must hold together; what is there is counted either
        way.
      split: slices of all records, such as `[:98%]` or `[:10%]+[20%:]`; see `slice_segments`.
      multi_label: whether the label is a list of any length, which may be empty or missing.

    Raises:
      FileNotFoundError: no file matches.
      ValueError: nothing readable in the first file, a declared feature is missing, the count
        differs, or the split cannot be read.
    """

    def __init__(
        self,
        pattern: str,
        num_classes: int,
        features: Mapping[str, str] | None = None,
        class_names: Sequence[str] | str | None = None,
        label_offset: int = 0,
        num_examples: int | None = None,
        split: str | None = None,
        multi_label: bool = False,
    ):
        features = dict(features or {"image": "image/encoded", "label": "image/class/label"})
        pattern = os.path.expanduser(str(pattern))
        try:
            paths = _matching_files(pattern)
        except FileNotFoundError as error:
            if not planning.is_planned() or num_examples is None or split is not None:
                raise
            planning.note("data", pattern, str(error))
            planned = [tfrecord.Segment("", 0, num_examples)]
            super().__init__(pattern, planned, features, num_classes, multi_label=multi_label)
            return
        planning.note("data", pattern)
        if isinstance(class_names, str):
            with tf.io.gfile.GFile(class_names) as file:
                class_names = file.read().splitlines()
        segments = _whole_files(paths)
        found = sum(segment.num_records for segment in segments)
        if num_examples not in (None, found):
            raise ValueError(
                f"{pattern} holds {found} records in {len(paths)} files, but "
                f"num_examples={num_examples} was declared: are shards missing?"
            )
        super().__init__(
            name=f"{pattern} {split}" if split else pattern,
            segments=slice_segments(segments, split) if split else segments,
            features=features,
            num_classes=num_classes,
            class_names=class_names,
            label_offset=label_offset,
            multi_label=multi_label,
        )
        _check_features(self.segments[0], features, multi_label)


def _matching_files(pattern: str) -> list[str]:
    paths = sorted(path for path in tf.io.gfile.glob(pattern) if not tf.io.gfile.isdir(path))
    if paths:
        return paths
    folder = os.path.dirname(pattern) or "."
    while not tf.io.gfile.isdir(folder) and os.path.dirname(folder) not in (folder, ""):
        folder = os.path.dirname(folder)
    hint = f"{folder} holds {content_of(folder)}" if tf.io.gfile.isdir(folder) else f"no {folder}"
    raise FileNotFoundError(f"No file matches the pattern {pattern} ({hint}).")


def _whole_files(paths: Sequence[str]) -> list[tfrecord.Segment]:
    """One segment a file; counting many large files is mostly waiting, hence the threads."""
    with concurrent.futures.ThreadPoolExecutor(_COUNT_THREADS) as pool:
        counts = list(pool.map(tfrecord.count_records, paths))
    for path, count in zip(paths, counts, strict=True):
        if not count:
            logging.warning("%s holds no records.", path)
    return [tfrecord.Segment(p, 0, count) for p, count in zip(paths, counts, strict=True)]


def _check_features(
    segment: tfrecord.Segment, declared: Mapping[str, str], multi_label: bool
) -> None:
    """Fails early and clearly when the feature map does not fit the first readable record.

    Labels that may be missing must be in one of the first few.
    """
    if not {"image", "label"} <= set(declared) <= {"image", "label", "filename"}:
        raise ValueError(
            f"TFRecordSource.features needs image and label, and may have filename: {declared}"
        )
    location, examples = _first_examples(segment)
    present = examples[0].features.feature
    looked_at = {"image": examples[:1], "label": examples if multi_label else examples[:1]}
    for role, those in looked_at.items():
        if not any(declared[role] in example.features.feature for example in those):
            raise ValueError(
                f"{location} has no feature {declared[role]!r} (declared as the {role}); "
                f"it has {', '.join(sorted(present))}. Set TFRecordSource.features."
            )


def _first_examples(segment: tfrecord.Segment) -> tuple[str, list[tf.train.Example]]:
    """The first readable examples, eight at most, and where the first lies.

    Nothing readable at all is an error.
    """
    result = tfrecord.scan(dataclasses.replace(segment, num_records=min(segment.num_records, 8)))
    if not result.good:
        first = result.corrupt[0]
        raise ValueError(
            f"{segment.path} record {first.record}: corrupt TFRecord ({first.reason}), and no "
            "readable record follows. Is it a TFRecord file?"
        )
    readable = result.good[0]
    location = f"{segment.path} record {readable.first_record}"
    records = tfrecord.read_segment(
        segment.path, readable.num_records, byte_offset=readable.byte_offset
    )
    examples = []
    for record in records:
        try:
            examples.append(tf.train.Example.FromString(record.numpy()))
        except message.DecodeError as error:
            if not examples:
                reason = f"is not a serialized tf.train.Example: {error}"
                raise ValueError(f"{location} {reason}") from error
    return location, examples
