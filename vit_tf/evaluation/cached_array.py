"""One array of a feature cache: written part by part, published whole, checked when it is read.

Its files:

    <name>.npy                 the array; without the JSON file it does not count
    <name>.json                its size and checksum; written last
    <name>.npy.partial         an array in the making
    <name>.npy.partial.json    how far it is
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vit_tf.data.disk import file_sha256, megabytes, read_json, sync, write_whole

_LONGEST_STEM = 80
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CachedArray:
    """An array [rows, ...] in a folder.

    Args:
      folder: of the cache.
      name: of the array.
      conditions: what a part must have been computed under for the rest to be added to it, such as
        the batch size, which the last bits depend on.
    """

    def __init__(self, folder: Path, name: str, conditions: dict[str, Any]):
        self.name = name
        stem = file_stem(name)
        self._path = folder / f"{stem}.npy"
        self._about = folder / f"{stem}.json"
        self._partial = folder / f"{stem}.npy.partial"
        self._progress = folder / f"{stem}.npy.partial.json"
        self._conditions = conditions
        self._file = None
        self._row_bytes = self._offset = 0

    @property
    def is_published(self) -> bool:
        """Whether the array was written to its end."""
        return self._about.exists()

    def problem(self) -> str | None:
        """What is wrong with the published array; None if it is as it was written."""
        about = read_json(self._about)
        if about is None:
            return f"{self._about} cannot be read"
        if not self._path.exists():
            return f"{self._path} is missing"
        size = self._path.stat().st_size
        if size != about.get("bytes"):
            return f"{self._path} has {size:,} bytes instead of {about.get('bytes'):,}"
        if file_sha256(self._path) != about.get("sha256"):
            return f"{self._path} is not what was written (another SHA-256)"
        return None

    def read(self) -> np.ndarray:
        """The published array, mapped from its file."""
        return np.load(self._path, mmap_mode="r", allow_pickle=False)

    def remove(self) -> None:
        """Removes what was published."""
        self._about.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    @property
    def steps_done(self) -> int:
        """How many batches are in the part that is there."""
        progress = read_json(self._progress)
        if not progress or progress.get("conditions") != self._conditions:
            return 0
        if not self._partial.exists() or self._partial.stat().st_size != progress.get("bytes"):
            return 0
        return progress.get("steps", 0)

    def begin(self, shape: tuple[int, ...], dtype: np.dtype, keep: bool) -> None:
        """Opens the partial file, and takes all of its room on the disk.

        Args:
          shape: of the whole array.
          dtype: of its values.
          keep: whether to go on with the part that is there.

        Raises:
          OSError: if the disk is full or cannot be written; nothing new is left there then.
        """
        dtype = np.dtype(dtype)
        self._row_bytes = dtype.itemsize * int(np.prod(shape[1:]))
        descr = np.lib.format.dtype_to_descr(dtype)
        header = {"descr": descr, "fortran_order": False, "shape": tuple(shape)}
        if not keep:
            self._progress.unlink(missing_ok=True)
        needed = shape[0] * self._row_bytes
        try:
            with self._clear_errors(needed):
                self._file = self._partial.open("r+b" if keep else "w+b")
                np.lib.format.write_array_header_1_0(self._file, header)
                self._file.flush()
                self._offset = self._file.tell()
                _take_room(self._file.fileno(), self._offset + needed)
        except OSError:
            self.close()
            if not keep:
                self.abandon()
            raise

    def write(self, index: np.ndarray, values: np.ndarray) -> None:
        """Writes rows.

        Args:
          index: ascending row numbers, int [count].
          values: [count, ...].
        """
        breaks = np.flatnonzero(np.diff(index) != 1) + 1
        with self._clear_errors(values.nbytes):
            for rows, part in zip(np.split(index, breaks), np.split(values, breaks), strict=True):
                if len(rows):
                    self._file.seek(self._offset + int(rows[0]) * self._row_bytes)
                    self._file.write(np.ascontiguousarray(part).data)

    def save(self, steps: int) -> None:
        """Brings what was written to the disk, and notes that it holds so many batches."""
        with self._clear_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            size = os.fstat(self._file.fileno()).st_size
            progress = {"steps": steps, "bytes": size, "conditions": self._conditions}
            write_whole(self._progress, json.dumps(progress))

    def publish(self) -> int:
        """Makes the partial array, all of which is written, the published one.

        Returns:
          Its size in bytes.
        """
        self.close()
        with self._clear_errors():
            sync(self._partial)
            about = {
                "name": self.name,
                "bytes": self._partial.stat().st_size,
                "sha256": file_sha256(self._partial),
            }
            self.remove()
            self._partial.rename(self._path)
            write_whole(self._about, json.dumps(about, indent=1) + "\n")
        self._progress.unlink(missing_ok=True)
        return about["bytes"]

    def abandon(self) -> None:
        """Removes the partial file."""
        self._progress.unlink(missing_ok=True)
        self._partial.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the partial file, if it is open."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what a full disk did not take
                self._file.close()
            self._file = None

    @contextlib.contextmanager
    def _clear_errors(self, needed: int = 0) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _DISK_FULL:
                reason = os.strerror(error.errno) if error.errno else str(error)
                raise OSError(
                    error.errno,
                    f"{self._partial} cannot be written ({reason}); choose another cache_dir",
                ) from error
            free = megabytes(shutil.disk_usage(self._partial.parent).free)
            raise OSError(
                error.errno,
                f"no room for the features {self.name!r} in {self._partial.parent}: they need "
                f"{megabytes(needed)}, and {free} are free. Make room and start the same command "
                "again (what is done is kept), or choose another cache_dir",
            ) from error


def file_stem(name: str) -> str:
    """A file name for an array's name; different ones for different names."""
    stem = re.sub(r"[^\w.+-]+", "_", name)[:_LONGEST_STEM]
    return stem if stem == name else f"{stem}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _take_room(file: int, size: int) -> None:
    """Makes a file so large that writing within it cannot find the disk full."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.truncate(file, size)
