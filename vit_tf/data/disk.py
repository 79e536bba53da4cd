"""Writing to a disk that may be full, read-only or about to lose its power."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import tensorflow as tf

CHECKSUM_FILE = "checksums.sha256"


def write_checksums(directory: Path, digests: Mapping[str, str]) -> None:
    """Writes `checksums.sha256`, which `sha256sum -c checksums.sha256` checks.

    Args:
      directory: Where the files lie.
      digests: SHA-256 in hex by file name.
    """
    lines = [f"{digest}  {filename}\n" for filename, digest in sorted(digests.items())]
    write_whole(directory / CHECKSUM_FILE, "".join(lines))


def file_sha256(path: Path) -> str:
    """Returns a file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict | None:
    """Returns what a JSON file holds, or None where there is no such file or no JSON in it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def write_whole(path: Path, text: str) -> None:
    """Writes a small file so that it is there in full or not at all."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    sync(temporary)
    temporary.rename(path)


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk, so that a power cut cannot lose it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_space(folder: Path, needed: int) -> None:
    """Raises OSError (ENOSPC) unless `needed` bytes are free where `folder` lies."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"{folder}: not enough disk space: about {megabytes(needed)} are needed, "
            f"{megabytes(free)} are free; make room or choose another --out_dir",
        )


@contextlib.contextmanager
def clear_disk_errors(path: Path, needed: int = 0) -> Iterator[None]:
    """Turns what Python and TensorFlow raise for a bad disk into an OSError that says what to do.

    Args:
      path: What is being written, for the message.
      needed: About how many bytes are still to be written.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise _disk_full(path, needed) from error
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, f"{path}: cannot be written ({error.message})") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(path, needed) from error
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OSError(
            error.errno, f"{path}: cannot be written ({reason}); choose another --out_dir"
        ) from error


def _disk_full(path: Path, needed: int) -> OSError:
    return OSError(
        errno.ENOSPC,
        f"{path}: the disk is full; about {megabytes(needed)} are needed for what is still to be "
        "written. Make room and run the same command again: it keeps the shards that are whole",
    )


def megabytes(num_bytes: int) -> str:
    """Returns a size for people: `1,234.5 MB`, or kB where it is small."""
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.1f} kB"
