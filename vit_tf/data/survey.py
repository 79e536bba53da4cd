"""A look at every record of a source: what is damaged, how many of each class, how large."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vit_tf.data import bad_records, tfrecord
from vit_tf.data.decode import decode_image
from vit_tf.data.disk import CHECKSUM_FILE, file_sha256
from vit_tf.data.input import Input
from vit_tf.data.op_registry import require
from vit_tf.data.sources import Source

_RECORDS_AT_A_TIME = 256
_FRAME_BYTES = 16  # length, its checksum and that of the data


@dataclasses.dataclass(frozen=True)
class BadRecord:
    """A record that gives no example: `record` counts from 0, its frame begins at `byte_offset`."""

    path: str
    record: int
    byte_offset: int
    problem: str

    def __str__(self) -> str:
        return f"{self.path} record {self.record} (byte {self.byte_offset}): {self.problem}"


@dataclasses.dataclass
class Survey:
    """What all records of a source hold.

    Attributes:
      num_records: records that the source declares.
      class_counts: readable examples by label, int64 `[num_classes]`; one with several labels
        counts for each.
      num_unlabelled: readable examples without a label, as a multi-label source may have.
      sizes: height and width of every readable image, int32 `[examples, 2]`.
      bad: the records that give no example.
    """

    num_records: int
    class_counts: np.ndarray
    num_unlabelled: int
    sizes: np.ndarray
    bad: list[BadRecord]


def survey(
    source: Source, num_workers: int = 2, progress: Callable[[int], None] = lambda count: None
) -> Survey:
    """Checks the framing of every record and decodes every image.

    Args:
      source: what to read.
      num_workers: threads that decode.
      progress: is told how many more records are done.
    """
    bad: list[BadRecord] = []
    labels, sizes = [], []
    examine = _examiner(source)
    with ThreadPoolExecutor(num_workers) as pool:
        for segment, first_index in zip(source.segments, source.first_indices, strict=True):
            result = tfrecord.scan(segment)
            bad += [
                BadRecord(segment.path, c.record, c.byte_offset, str(c)) for c in result.corrupt
            ]
            progress(len(result.corrupt))
            for good in result.good:
                for piece in _pieces(good):
                    indices = [
                        first_index + record.number - segment.first_record for record in piece
                    ]
                    found_all = pool.map(examine, indices, [record.serialized for record in piece])
                    for record, found in zip(piece, found_all, strict=True):
                        if isinstance(found, str):
                            bad.append(
                                BadRecord(good.path, record.number, record.byte_offset, found)
                            )
                        else:
                            sizes.append(found[:2])
                            labels.append(found[2:])
                    progress(len(piece))
    return Survey(
        num_records=source.num_examples,
        class_counts=np.bincount(
            np.array([label for each in labels for label in set(each)], np.int64),
            minlength=source.num_classes,
        ),
        num_unlabelled=labels.count(()),
        sizes=np.array(sizes, np.int32).reshape(-1, 2),
        bad=sorted(bad, key=lambda record: (record.path, record.record)),
    )


def wrong_checksums(source: Source) -> tuple[int, list[str]]:
    """Compares a source's files with the `checksums.sha256` beside them, where there is one.

    Returns:
      How many files were compared, and a sentence for each whose content is not what was written.
    """
    compared, wrong = 0, []
    for path in sorted({Path(segment.path) for segment in source.segments}):
        listed = path.with_name(CHECKSUM_FILE)
        if not listed.exists():
            continue
        pairs = (line.split(maxsplit=1) for line in listed.read_text().splitlines() if line)
        digests = {name.strip().lstrip("*"): digest for digest, name in pairs}
        if path.name not in digests:
            continue
        compared += 1
        if file_sha256(path) != digests[path.name]:
            wrong.append(f"{path}: the content is not what {CHECKSUM_FILE} says")
    return compared, wrong


def images_per_second(data: Input, seconds: float = 5.0) -> float:
    """Examples that an input delivers a second, after a first batch that is not counted.

    Args:
      data: the input; an evaluation's is begun again when it ends.
      seconds: about how long to measure.
    """
    batches = iter(data().repeat())
    next(batches)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        count += int(next(batches)["label"].shape[0])
    return count / (time.perf_counter() - began)


def encoded_image(source: Source, index: int) -> bytes:
    """The encoded image of one record, by its number in the split."""
    first = index
    for segment in source.segments:
        if first < segment.num_records:
            break
        first -= segment.num_records
    offset = tfrecord.offset_of(segment.path, segment.first_record + first)
    record = tfrecord.read_segment(segment.path, 1, byte_offset=offset).get_single_element()
    return source.parse(record, index)["image"].numpy()


def typical_area(source: Source, images: int = 32) -> int:
    """Median of height times width of some images, the first ones of files all over a split."""
    files = min(images, len(source.segments))
    chosen = [place * len(source.segments) // files for place in range(files)]
    segments = [source.segments[place] for place in chosen]
    each = -(-images // files)
    columns = (
        [segment.path for segment in segments],
        np.array([min(each, segment.num_records) for segment in segments], np.int64),
        np.array([segment.byte_offset for segment in segments], np.int64),
        np.array([source.first_indices[place] for place in chosen], np.int64),
    )

    def records(path, count, offset, first):
        serialized = tfrecord.read_segment(path, count, byte_offset=offset)
        return tf.data.Dataset.zip(tf.data.Dataset.range(first, first + count), serialized)

    def area(index, serialized):
        image = decode_image(source.parse(serialized, index)["image"])
        return tf.reduce_prod(tf.shape(image)[:2])

    def read() -> list[int]:
        areas = tf.data.Dataset.from_tensor_slices(columns).flat_map(records).map(area)
        return list(areas.as_numpy_iterator())

    with ThreadPoolExecutor(1) as pool:  # here a graph may be in the making, as in a dry run
        return int(np.median(pool.submit(read).result()))


class _Record(NamedTuple):
    number: int
    byte_offset: int
    serialized: bytes


def _pieces(segment: tfrecord.Segment) -> Iterator[list[_Record]]:
    """Lists of a segment's records; no more than one list is in memory."""
    records = tfrecord.read_segment(
        segment.path, segment.num_records, byte_offset=segment.byte_offset
    )
    piece, number, offset = [], segment.first_record, segment.byte_offset
    for serialized in records.as_numpy_iterator():
        piece.append(_Record(number, offset, serialized))
        number, offset = number + 1, offset + _FRAME_BYTES + len(serialized)
        if len(piece) == _RECORDS_AT_A_TIME:
            yield piece
            piece = []
    if piece:
        yield piece


def _examiner(source: Source) -> Callable[[int, bytes], tuple[int, ...] | str]:
    """A function of a record and its index: height, width and labels, or what is wrong."""

    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.string)]
    )
    def read(index: tf.Tensor, serialized: tf.Tensor) -> tf.Tensor:
        features = source.parse(serialized, index)
        label = tf.reshape(features["label"], [-1])
        fits = tf.reduce_all((label >= 0) & (label < source.num_classes))
        one = tf.cast(require(fits, "a label outside of the classes"), tf.int64)
        image = decode_image(features["image"], filename=features["filename"])
        size = tf.shape(image, tf.int64)[:2]
        return tf.concat([size, label * one], axis=0)

    def examine(index: int, serialized: bytes) -> tuple[int, ...] | str:
        try:
            return tuple(read(tf.constant(index, tf.int64), serialized).numpy().tolist())
        except tf.errors.OpError as error:
            return bad_records.describe(*source.part_of(index), serialized, error)

    return examine
