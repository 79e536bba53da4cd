"""Leaving bad records out without hiding it: they are found, counted and reported."""

import threading

from absl import logging

from vit_tf.data import tfrecord
from vit_tf.data.sources import Source

_WARNED_RECORDS = 10
_PROGRESS_SECONDS = 10


class SkippedRecords:
    """What was skipped and why; every record counts once, the first ten are warned of.

    Attributes:
      reasons: reason by location (`<file> record <number>`).
    """

    def __init__(self):
        self.reasons: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, location: str, reason: str) -> None:
        """Notes a skipped record; may be called from many threads."""
        with self._lock:
            if location in self.reasons:
                return
            self.reasons[location] = reason
            count = len(self.reasons)
        if count <= _WARNED_RECORDS:
            logging.warning("Skipped %s: %s", location, reason)
        if count == _WARNED_RECORDS:
            logging.warning("Further skipped records are listed in Input.skipped only.")


def readable_segments(
    source: Source, skipped: SkippedRecords
) -> tuple[list[tfrecord.Segment], list[int]]:
    """Reads all files of a source once and leaves out what is corrupt.

    Args:
      source: the source to scan.
      skipped: gets every corrupt record.

    Returns:
      The readable segments and the global index of each one's first record.

    Raises:
      ValueError: nothing is readable.
    """
    segments, first_indices, first, num_corrupt = [], [], 0, 0
    for number, segment in enumerate(source.segments, 1):
        logging.log_every_n_seconds(
            logging.INFO,
            "Scanning %s for corrupt records: file %d of %d",
            _PROGRESS_SECONDS,
            source.name,
            number,
            len(source.segments),
        )
        result = tfrecord.scan(segment)
        for corrupt in result.corrupt:
            skipped.add(f"{segment.path} record {corrupt.record}", str(corrupt))
        num_corrupt += len(result.corrupt)
        segments += result.good
        first_indices += [first + good.first_record - segment.first_record for good in result.good]
        first += segment.num_records
    if not segments:
        raise ValueError(f"{source.name}: all {first} records are corrupt")
    if num_corrupt:
        message = "%s: %d of %d records are corrupt and left out (see Input.skipped)."
        logging.warning(message, source.name, num_corrupt, first)
    return segments, first_indices
