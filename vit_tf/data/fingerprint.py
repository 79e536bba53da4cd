"""What identifies a source's records and labels, for what is computed from them and kept."""

import posixpath
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from vit_tf.data.disk import CHECKSUM_FILE
from vit_tf.data.sources import Source


def source_facts(source: Source) -> dict[str, Any]:
    """Facts that are equal for equal records with equal labels.

    A file is known by its name, size and the SHA-256 that `checksums.sha256` beside it lists; where
    there is none, or the file is newer than that list, by the time of its last change.

    Returns:
      What JSON can hold.

    Raises:
      TypeError: for a source that makes its labels in a way that it does not tell.
    """
    _check_labelling(source)
    paths = list(dict.fromkeys(segment.path for segment in source.segments))
    number = {path: place for place, path in enumerate(paths)}
    listed: dict[str, tuple[Mapping[str, str], int]] = {}
    return {
        "name": source.name,
        "labels": source.labelling(),
        "files": [_file_facts(path, listed) for path in paths],
        "records": [[number[s.path], s.first_record, s.num_records] for s in source.segments],
    }


def _check_labelling(source: Source) -> None:
    """Raises TypeError if a class parses records anew without saying how it labels them."""
    for part in (source, *source.parts):
        owner = next(kind for kind in type(part).__mro__ if "parse" in vars(kind))
        if not issubclass(
            next(kind for kind in type(part).__mro__ if "labelling" in vars(kind)), owner
        ):
            raise TypeError(
                f"{owner.__name__} has a parse of its own; give it a method labelling that tells "
                "what its labels depend on (see Source.labelling), so that they can be kept"
            )


def _file_facts(path: str, listed: dict[str, tuple[Mapping[str, str], int]]) -> list[Any]:
    folder, name = posixpath.split(path)
    if folder not in listed:
        listed[folder] = _checksums(posixpath.join(folder, CHECKSUM_FILE))
    digests, listed_at = listed[folder]
    about = tf.io.gfile.stat(path)
    known = name in digests and about.mtime_nsec <= listed_at
    return [name, about.length, digests[name] if known else about.mtime_nsec]


def _checksums(path: str) -> tuple[Mapping[str, str], int]:
    """Digest by file name, and when the list was written."""
    if not tf.io.gfile.exists(path):
        return {}, 0
    with tf.io.gfile.GFile(path) as file:
        pairs = [line.split(maxsplit=1) for line in file.read().splitlines() if line.strip()]
    digests = {pair[1].lstrip("*"): pair[0] for pair in pairs if len(pair) == 2}
    return digests, tf.io.gfile.stat(path).mtime_nsec
