"""A dataset's folder: one writer at a time, and a name only when it is whole."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from vit_tf.data.disk import clear_disk_errors, sync
from vit_tf.data.shard_writer import PROGRESS_FOLDER

TFDS_INFO_FILE = "dataset_info.json"  # what makes TFDS take a folder for a dataset


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a second writer out; the lock goes with the process, however that ends."""
    with clear_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(
                f"another process is writing in {folder}; wait for it to finish"
            ) from None
        yield
    finally:
        os.close(descriptor)


def publish(work: Path, final: Path) -> None:
    """Gives the whole dataset its name; a dataset that is there already makes room."""
    replaced = _replaced(final)
    with clear_disk_errors(final):
        for path in work.iterdir():
            sync(path)
        sync(work)
        if final.exists():
            remove(replaced)
            final.rename(replaced)
        work.rename(final)
        sync(final.parent)
        tidy(final)


def tidy(final: Path) -> None:
    """Removes what only the writing needed; done again should a run have ended before it."""
    remove(_replaced(final))
    shutil.rmtree(final / PROGRESS_FOLDER, ignore_errors=True)


def _replaced(final: Path) -> Path:
    """Where the dataset that makes room for a new one waits for its removal."""
    return final.with_name(f"{final.name}.replaced")


def remove(folder: Path) -> None:
    """Removes a dataset; first what makes readers take it for whole, should this be cut short."""
    if folder.exists():
        (folder / TFDS_INFO_FILE).unlink(missing_ok=True)
        shutil.rmtree(folder)
