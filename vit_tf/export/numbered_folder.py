"""Folders of exports, numbered as TensorFlow Serving watches them: each is there whole or not."""

import contextlib
import dataclasses
import os
import socket
from collections.abc import Iterator

import tensorflow as tf

_INCOMPLETE = ".incomplete-"


@dataclasses.dataclass
class NumberedFolder:
    """A folder that is being written.

    Attributes:
      aside: where to write.
      path: the numbered folder that it became; None before.
    """

    aside: str
    path: str | None = None


@contextlib.contextmanager
def writing_next_number(folder: str) -> Iterator[NumberedFolder]:
    """Gives a folder to write into, which gets the next number when the block ends well.

    Of several processes that write at once each gets a number of its own, in the order in which
    they end. What exports that were killed on this machine left behind is removed first.

    Args:
      folder: where the numbered folders lie, local or remote; made if it is not there.

    Yields:
      The folder to write into; its `path` is known after the block.

    Raises:
      OSError: if `folder` cannot be written or is a file; nothing is left there then.
    """
    with _writing_aside(folder, "--export_dir") as aside:
        written = NumberedFolder(aside)
        yield written
        written.path = _move_to_next_number(aside, folder)


@contextlib.contextmanager
def writing_folder(path: str) -> Iterator[str]:
    """Gives a folder to write into, which becomes `path` when the block ends well.

    Args:
      path: a folder that is not there yet; the one that it lies in is made.

    Yields:
      The folder to write into.

    Raises:
      FileExistsError: if `path` is there already.
      OSError: if it cannot be written; nothing is left there then.
    """
    if tf.io.gfile.exists(path):
        raise FileExistsError(f"{path} is there already; remove it, or choose another name")
    with _writing_aside(os.path.dirname(os.path.abspath(path)), "folder") as aside:
        yield aside
        tf.io.gfile.rename(aside, path)


@contextlib.contextmanager
def _writing_aside(folder: str, choice: str) -> Iterator[str]:
    """Gives a folder's name inside `folder`, and removes what is there when the block has ended."""
    aside = os.path.join(folder, f"{_INCOMPLETE}{socket.gethostname()}-{os.getpid()}")
    if tf.io.gfile.exists(folder) and not tf.io.gfile.isdir(folder):
        raise NotADirectoryError(
            f"{choice} {folder} is a file; exports are folders in it: name a folder for them"
        )
    try:
        tf.io.gfile.makedirs(folder)
        _remove_leftovers(folder)
        yield aside
    except tf.errors.OpError as error:
        reason = " ".join(error.message.split())
        raise OSError(
            f"could not write an export to {folder}: {reason}. Nothing was published; make room, "
            f"or choose another {choice}"
        ) from error
    finally:
        _remove(aside)


def _move_to_next_number(aside: str, folder: str) -> str:
    """Renames to the first number that is larger than all there are; returns the new path."""
    while True:
        path = os.path.join(folder, str(1 + max(_numbers(folder), default=0)))
        try:
            tf.io.gfile.rename(aside, path)
            return path
        except tf.errors.OpError:
            if not tf.io.gfile.exists(path):  # else another process was faster
                raise


def _numbers(folder: str) -> list[int]:
    names = [name.strip("/") for name in tf.io.gfile.listdir(folder)]
    return [int(name) for name in names if name.isdigit()]


def _remove_leftovers(folder: str) -> None:
    """Removes what processes of this machine that no longer run left unfinished."""
    for name in tf.io.gfile.listdir(folder):
        host, _, process = name.strip("/").removeprefix(_INCOMPLETE).rpartition("-")
        if not name.startswith(_INCOMPLETE) or host != socket.gethostname():
            continue
        if process.isdigit() and (int(process) == os.getpid() or not _runs(int(process))):
            _remove(os.path.join(folder, name))


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as another user
        return True
    return True


def _remove(folder: str) -> None:
    # Not there, or on a disk that refuses: the next export tries again.
    with contextlib.suppress(tf.errors.OpError):
        tf.io.gfile.rmtree(folder)
