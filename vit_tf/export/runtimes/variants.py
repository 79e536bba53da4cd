"""All the kinds of one SavedModel: converted into a folder, and measured together."""

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from vit_tf.export.runtimes.comparison import Comparison, compare, split_batches
from vit_tf.export.runtimes.conversion import convert, read_metadata
from vit_tf.export.runtimes.registry import all_kinds, get_kind
from vit_tf.export.runtimes.served_model import ServedModel

_COMPARISON = "comparison.json"


def convert_kinds(
    served: ServedModel,
    output_dir: str,
    kinds: Sequence[str] | None = None,
    representative: Iterable[np.ndarray] | None = None,
    say: Callable[[str], Any] = print,
) -> list[str]:
    """Converts a SavedModel to several kinds, each in a folder of its name.

    A folder that is there already and was made of the same SavedModel is kept.

    Args:
      served: the SavedModel.
      output_dir: gets the folders.
      kinds: names of `all_kinds()`; all of them by default.
      representative: see `convert`.
      say: is told of each kind.

    Returns:
      The folders.

    Raises:
      FileExistsError: if a folder is there that was not made of this SavedModel.
      Exception: see `convert`.
    """
    kinds = list(all_kinds()) if kinds is None else list(kinds)
    for kind in kinds:  # what cannot work is said before hours of work
        get_kind(kind).require()
    images = None if representative is None else list(representative)
    folders = [os.path.join(output_dir, kind) for kind in kinds]
    for kind, folder in zip(kinds, folders, strict=True):
        if _is_of(folder, served):
            say(f"{kind}: {folder} is there already")
            continue
        convert(served, kind, folder, images)
        difference = read_metadata(folder)["largest_difference"]
        say(f"{kind}: {folder}, differs by {difference:.2g} of the largest logit")
    return folders


def compare_kinds(
    served: ServedModel,
    output_dir: str,
    folders: Sequence[str],
    source: Any,
    batch_size: int = 16,
    num_threads: int | None = None,
) -> list[Comparison]:
    """Measures converted models next to their SavedModel, and writes `comparison.json`.

    Args:
      served: the SavedModel.
      output_dir: where `comparison.json` goes.
      folders: as `convert_kinds` returns them.
      source: `vit_tf.data` source of the split to measure on, all of which is taken.
      batch_size: images at a time.
      num_threads: see `load`.

    Returns:
      A row for the SavedModel and one for each folder.

    Raises:
      ValueError: see `split_batches`; or an image cannot be read.
    """
    batches = split_batches(served, source, batch_size)
    rows = list(compare(served, folders, batches, num_threads))
    measured = {
        "saved_model": served.folder,
        "split": source.name,
        "batch_size": batch_size,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    path = os.path.join(output_dir, _COMPARISON)
    with open(f"{path}.incomplete", "w", encoding="utf-8") as file:
        json.dump(measured, file, indent=1)
    os.replace(f"{path}.incomplete", path)
    return rows


def representative_images(served: ServedModel, source: Any, count: int = 100) -> list[np.ndarray]:
    """Returns the first images of a split as the model takes them, float32 [H, W, C]."""
    batches = split_batches(served, source, batch_size=min(count, 32))()
    images = itertools.chain.from_iterable(images for images, _ in batches)
    return list(itertools.islice(images, count))


def _is_of(folder: str, served: ServedModel) -> bool:
    try:
        return read_metadata(folder)["source"]["fingerprint"] == served.fingerprint()
    except FileNotFoundError:
        return False
