"""The TFRecord framing: counting, checking and reading records of one file.

A record is `length (uint64) | masked CRC32C of length | data | masked CRC32C of data`, all
little-endian (tensorflow/core/lib/io/record_writer.h). TensorFlow's own reader stops at the first
damaged byte; this module says which records are damaged and lets everything around them be read.
"""

import dataclasses
import itertools
import os
import struct
from collections.abc import Iterator

import google_crc32c
import numpy as np
import tensorflow as tf

_HEADER_BYTES = 12  # length and its CRC
_FOOTER_BYTES = 4  # CRC of the data
_READ_BUFFER_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Segment:
    """A run of consecutive records of one file.

    Attributes:
      path: the TFRecord file.
      first_record: number of the run's first record in the file, from 0.
      num_records: how many records the run has.
      byte_offset: where `first_record` begins in the file.
    """

    path: str
    first_record: int
    num_records: int
    byte_offset: int = 0


@dataclasses.dataclass(frozen=True)
class CorruptRecord:
    """One damaged place: `record` is counted from 0, `byte_offset` is where its frame begins."""

    record: int
    byte_offset: int
    reason: str

    def __str__(self) -> str:
        return f"corrupt TFRecord ({self.reason})"


@dataclasses.dataclass(frozen=True)
class ScanResult:
    """What `scan` found: `good` runs of readable records and the `corrupt` ones between them."""

    path: str
    good: list[Segment]
    corrupt: list[CorruptRecord]

    @property
    def num_good(self) -> int:
        """Number of readable records."""
        return sum(segment.num_records for segment in self.good)


def masked_crc32c(data: bytes) -> int:
    """The checksum that the framing stores: CRC32C, rotated and offset (core/lib/hash/crc32c.h)."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def count_records(path: str) -> int:
    """Counts the records of a file by walking the framing; payloads are not read.

    Where the framing cannot be followed any further (wrong length checksum, or the file ends inside
    a record), that place counts as the last record: reading it fails, or skips it, by its number.
    """
    return sum(1 for _ in record_offsets(path))


def record_offsets(path: str, offset: int = 0) -> Iterator[int]:
    """Yields the byte offset of every record from one on that `count_records` counts."""
    size = tf.io.gfile.stat(path).length
    with _open_for_seeks(path) as file:
        while offset < size:
            yield offset
            file.seek(offset)
            length, problem = _read_length(file, offset, size)
            if problem:
                return
            offset += _HEADER_BYTES + length + _FOOTER_BYTES


def offset_of(path: str, record: int) -> int:
    """Byte offset of a record.

    Raises:
      ValueError: the file has no such record.
    """
    if not record:
        return 0
    count = 0
    for offset in record_offsets(path):
        if count == record:
            return offset
        count += 1
    raise ValueError(f"{path} holds {count} records; record {record} was asked for")


def record_bounds(segment: Segment) -> np.ndarray:
    """Where each record of a segment begins and the last one ends, int64 `[num_records + 1]`.

    Records that the file lacks begin and end where it ends.
    """
    size = tf.io.gfile.stat(segment.path).length
    offsets = record_offsets(segment.path, segment.byte_offset)
    found = list(itertools.islice(offsets, segment.num_records + 1))
    bounds = np.full(segment.num_records + 1, size, np.int64)
    bounds[: len(found)] = found
    return bounds


def part(segment: Segment, first: int, num_records: int, bounds: np.ndarray) -> Segment:
    """A run of a segment's records, `first` counted in it; `bounds` are its `record_bounds`."""
    return Segment(segment.path, segment.first_record + first, num_records, int(bounds[first]))


def scan(segment: Segment) -> ScanResult:
    """Reads every byte of a segment and checks both checksums of each record.

    A record whose data checksum is wrong is skipped by its length. After a wrong length checksum,
    or where the file ends, nothing further can be found: all remaining records of the segment are
    reported as corrupt, so that good and corrupt ones always add up to `num_records`.

    Args:
      segment: the run to check; `num_records` is what the run is declared to hold.
    """
    path, end = segment.path, segment.first_record + segment.num_records
    size = tf.io.gfile.stat(path).length
    good, corrupt = [], []
    record, offset = segment.first_record, segment.byte_offset
    run_record, run_offset = record, offset

    def close_run() -> None:
        if record > run_record:
            good.append(Segment(path, run_record, record - run_record, run_offset))

    with tf.io.gfile.GFile(path, "rb") as file:
        file.seek(offset)
        reader = _Buffered(file)
        while record < end:
            length, problem = _read_length(reader, offset, size)
            if problem:
                corrupt.append(CorruptRecord(record, offset, problem))
                lost = f"lost behind the damage at byte {offset}"
                corrupt += [CorruptRecord(r, offset, lost) for r in range(record + 1, end)]
                break
            data = reader.read(length)
            (stored,) = struct.unpack("<I", reader.read(_FOOTER_BYTES))
            next_offset = offset + _HEADER_BYTES + length + _FOOTER_BYTES
            if masked_crc32c(data) != stored:
                close_run()
                data_at = offset + _HEADER_BYTES
                problem = f"CRC mismatch in the {length} data bytes at byte {data_at}"
                corrupt.append(CorruptRecord(record, offset, problem))
                run_record, run_offset = record + 1, next_offset
            record, offset = record + 1, next_offset
    close_run()
    return ScanResult(path, good, corrupt)


def read_segment(
    path: tf.Tensor | str,
    num_records: tf.Tensor | int,
    first_record: tf.Tensor | int = 0,
    byte_offset: tf.Tensor | int | None = None,
    buffer_bytes: tf.Tensor | int = _READ_BUFFER_BYTES,
) -> tf.data.Dataset:
    """The serialized records of a segment; the arguments may be tensors of a dataset function.

    A file that ends early is continued with empty strings, so a missing record keeps its place and
    fails where it is parsed instead of shifting all that follow.

    Args:
      path: the file.
      num_records: how many records to read.
      first_record: how many to pass over before; they must be sound. Not used with `byte_offset`.
      byte_offset: where to begin, for a segment behind a corrupt record. Deterministic TensorFlow
        does not know this way of reading: it then gives up all parallelism of the pipeline.
      buffer_bytes: how much to read at a time, from `byte_offset` on.
    """
    if byte_offset is None:
        records = tf.data.TFRecordDataset(path).skip(tf.cast(first_record, tf.int64))
    else:
        # TensorFlow 2.20 cannot serialize this dataset op at the top level of an iterator's graph
        # (it forgets `byte_offsets`); inside a dataset function it never has to.
        start = (path, tf.cast(byte_offset, tf.int64), tf.cast(buffer_bytes, tf.int64))
        records = tf.data.Dataset.from_tensors(start).flat_map(_read_from)
    # Not from_tensors, which deterministic TensorFlow does not know inside dataset functions.
    missing = tf.data.Dataset.from_tensor_slices([""]).repeat()
    return records.concatenate(missing).take(num_records)


def _read_from(path: tf.Tensor, byte_offset: tf.Tensor, buffer_bytes: tf.Tensor) -> tf.data.Dataset:
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=path[tf.newaxis],
        compression_type="",
        buffer_size=buffer_bytes,
        byte_offsets=byte_offset[tf.newaxis],
    )
    return tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))


def _open_for_seeks(path: str):
    """The file for small reads far apart, at which Python's own files are 20 times as fast."""
    if os.path.exists(path):
        return open(path, "rb", buffering=0)
    return tf.io.gfile.GFile(path, "rb")


class _Buffered:
    """Sequential reads in large pieces: a call of `GFile.read` costs more than its bytes."""

    def __init__(self, file: tf.io.gfile.GFile):
        self._file, self._buffer, self._position = file, b"", 0

    def read(self, num_bytes: int) -> bytes:
        missing = num_bytes - (len(self._buffer) - self._position)
        if missing > 0:
            more = self._file.read(max(missing, _READ_BUFFER_BYTES))
            self._buffer, self._position = self._buffer[self._position :] + more, 0
        start, self._position = self._position, self._position + num_bytes
        return self._buffer[start : self._position]


def _read_length(file, offset: int, size: int) -> tuple[int, str | None]:
    """Reads a record's header; returns its data length and what is wrong with it, if anything."""
    if offset >= size:
        return 0, f"the file ends at byte {size}, before this record"
    header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES:
        return 0, f"the file ends at byte {size}, inside the header at byte {offset}"
    length, stored = struct.unpack("<QI", header)
    if masked_crc32c(header[:8]) != stored:
        if offset == 0 and header.startswith(b"\x1f\x8b"):
            return 0, "the file is gzip-compressed; decompress it first"
        behind = f"the file's last {size - offset} bytes and their records are lost"
        return 0, f"CRC mismatch in the length at byte {offset}: {behind}"
    end = offset + _HEADER_BYTES + length + _FOOTER_BYTES
    if end > size:
        return 0, f"the file ends at byte {size}, inside the record of bytes {offset} to {end}"
    return length, None
