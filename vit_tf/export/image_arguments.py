"""Image files that a command line names, and their bytes read ahead."""

import glob
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")


def list_images(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Finds the images that arguments name, in their order.

    Args:
      arguments: files of any name; folders, which are searched to the bottom for `SUFFIXES`; and
        patterns such as `"photos/**/*.jpg"`.

    Returns:
      The files, those of a folder or a pattern in sorted order; and a sentence for each argument
      that names none.
    """
    images: list[Path] = []
    problems: list[str] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not found:
                problems.append(f"no image ({', '.join(SUFFIXES)}) in {path}")
        elif path.exists():
            found = [path]
        elif glob.has_magic(argument):
            matches = sorted(map(Path, glob.iglob(argument, recursive=True)))
            found = [match for match in matches if match.is_file()]
            if not found:
                problems.append(f"no file matches {argument}")
        else:
            found = []
            problems.append(f"no such file or folder: {path}")
        images += found
    return images, problems


def read_ahead(
    files: Sequence[Path], batch_size: int, problems: list[str]
) -> Iterator[list[tuple[Path, bytes]]]:
    """Yields batches of files with their bytes; while one is used, the next is read.

    Args:
      files: to read.
      batch_size: files in a batch; two batches at most are in memory.
      problems: gets a sentence for each file that cannot be read, in their order.
    """
    batches = [files[first : first + batch_size] for first in range(0, len(files), batch_size)]
    with ThreadPoolExecutor(1) as reader:
        reading = None
        for batch in [*batches, None]:
            following = reader.submit(_read, batch) if batch else None
            if reading is not None:
                contents, failures = reading.result()
                problems += failures
                yield contents
            reading = following


def _read(files: Sequence[Path]) -> tuple[list[tuple[Path, bytes]], list[str]]:
    contents, failures = [], []
    for file in files:
        try:
            contents.append((file, file.read_bytes()))
        except OSError as error:
            failures.append(f"{file} cannot be read: {error.strerror}")
    return contents, failures


def names_below_common_folder(files: Sequence[Path]) -> list[Path]:
    """Each file's path from the folder that holds all of them."""
    paths = [os.path.abspath(file) for file in files]
    folder = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ""
    return [Path(os.path.relpath(path, folder)) for path in paths]
