"""Writes labelled images as sharded TFRecords in the on-disk layout of TensorFlow Datasets."""

import collections
import dataclasses
import errno
import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from absl import logging
from tqdm import tqdm

from vit_tf.data.beam_shards import pipeline_options, write_with_beam
from vit_tf.data.dataset_folder import TFDS_INFO_FILE, locked, publish, remove, tidy
from vit_tf.data.disk import (
    check_space,
    clear_disk_errors,
    read_json,
    write_checksums,
    write_whole,
)
from vit_tf.data.image_files import ImageCollection, list_some
from vit_tf.data.shard_plan import Shard, ShardPlan, plan_shards
from vit_tf.data.shard_writer import (
    ATTEMPT_SUFFIX,
    PROGRESS_FOLDER,
    ShardResult,
    finished_result,
    write_with_threads,
)

_PLAN_FILE = "shard_plan.json"
_SKIPPED_FILE = "skipped.txt"

# Writes shards into a folder and tells a callable how many images are done, as they are.
_WriteShards = Callable[[Path, Sequence[Shard], Callable[[int], object]], None]


@dataclasses.dataclass(frozen=True)
class DatasetSummary:
    """A dataset as it lies on disk.

    Attributes:
      directory: `<out_dir>/<name>/<version>`.
      split_sizes: Examples by split.
      shard_counts: Shards by split.
      num_classes: Number of class names.
      num_bytes: Size of all shards.
      num_skipped: Images left out because they could not be read.
      already_complete: Whether an earlier run had written it and nothing was done.
    """

    directory: Path
    split_sizes: dict[str, int]
    shard_counts: dict[str, int]
    num_classes: int
    num_bytes: int
    num_skipped: int
    already_complete: bool = False


def write_dataset(
    collection: ImageCollection,
    out_dir: str | Path,
    name: str,
    *,
    version: str = "1.0.0",
    num_shards: int | Mapping[str, int] | None = None,
    shard_bytes: int = 128 * 2**20,
    num_workers: int | None = None,
    beam_options: Sequence[str] | None = None,
    skip_bad_images: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = logging.info,
) -> DatasetSummary:
    """Writes `<out_dir>/<name>/<version>`, which `tfds.builder_from_directory` reads.

    Every example holds `image` (the file's own bytes), `label` and `image/filename`. The same
    input gives the same bytes in every file, whatever the number of workers, written by threads
    or by Beam. Everything is written in `<version>.incomplete` first and appears under its name by
    one rename; a run that was killed goes on after the last whole shard.

    Args:
      collection: The images.
      out_dir: Folder for datasets, on a disk; made if it is not there. Where Beam's workers are
        other machines, they must have it, and the images, mounted under the same path.
      name: The dataset's name.
      version: The dataset's version.
      num_shards: Shards of every split, or by split; by size if None.
      shard_bytes: The largest shard aimed at where `num_shards` does not say.
      num_workers: Threads that read and check images; one a core if None. Not for Beam.
      beam_options: Flags of an Apache Beam pipeline, `["--runner=FlinkRunner", ...]`, which then
        writes the shards, each as one piece of work; None writes them here with threads.
      skip_bad_images: Leave out images that cannot be read, list them in `skipped.txt` and count
        them, instead of failing.
      overwrite: Replace a dataset of other content under the same name and version.
      progress: Show a progress bar on stderr.
      say: Is told, in words, what is kept, dropped or skipped.

    Returns:
      A summary of what lies on disk.

    Raises:
      ValueError: bad names or counts (see `plan_shards`), or images that cannot be read.
      FileExistsError: another dataset is there and `overwrite` is False, or another process is
        writing it.
      ImportError: `beam_options` are given and Beam is not installed.
      OSError: the disk is full or cannot be written, or the Beam pipeline failed.
    """
    if "://" in os.fspath(out_dir):
        raise ValueError(
            f"out_dir {out_dir}: shards are written to a folder, not to a URL; give a mounted "
            "folder, and copy the dataset when it is whole"
        )
    write_shards = _shard_writer(num_workers, beam_options)
    plan = plan_shards(collection, name, version, num_shards, shard_bytes)
    final = Path(out_dir).expanduser().absolute() / name / version
    with locked(final.parent):
        if final.exists() and not overwrite:
            return _existing(final, plan, collection)
        work = final.with_name(f"{version}.incomplete")
        _start(work, plan, say)
        results = _write_missing_shards(work, plan, write_shards, progress, say)
        _settle_bad_images(results, plan, skip_bad_images, work, say)
        with clear_disk_errors(work):
            _write_metadata(work, plan, results, collection, version)
        publish(work, final)
    return _summary(final, plan, results, len(collection.class_names))


def _shard_writer(num_workers: int | None, beam_options: Sequence[str] | None) -> _WriteShards:
    """Returns what writes the missing shards, after checking what it is given."""
    if beam_options is not None:
        if num_workers is not None:
            raise ValueError(
                f"num_workers={num_workers} is the number of threads without Beam; say in "
                "beam_options how many workers the pipeline has"
            )
        return functools.partial(write_with_beam, options=pipeline_options(beam_options))
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, got {num_workers}")
    return functools.partial(write_with_threads, num_workers=num_workers or os.cpu_count() or 1)


def _existing(final: Path, plan: ShardPlan, collection: ImageCollection) -> DatasetSummary:
    """Returns the summary of the dataset that is there, if it is the one asked for."""
    stored = read_json(final / _PLAN_FILE)
    if stored is None or stored["fingerprint"] != plan.fingerprint:
        raise FileExistsError(
            f"{final} already holds a dataset made from other images or options; "
            "give --overwrite to replace it, or another --name or --version"
        )
    results = [
        ShardResult(**stored["shards"][shard.filename], sha256="", bad_images=[])
        for shard in plan.shards
    ]
    for shard, result in zip(plan.shards, results, strict=True):
        path = final / shard.filename
        if not path.exists() or path.stat().st_size != result.file_bytes:
            raise FileExistsError(
                f"{path} is missing or cut short; give --overwrite to write the dataset again"
            )
    tidy(final)
    summary = _summary(final, plan, results, len(collection.class_names))
    return dataclasses.replace(
        summary,
        already_complete=True,
        num_skipped=plan.num_images - sum(summary.split_sizes.values()),
    )


def _start(work: Path, plan: ShardPlan, say: Callable[[str], None]) -> None:
    """Makes `work` ready: what another plan left there goes, what this plan left stays."""
    with clear_disk_errors(work, needed=plan.num_bytes):
        stored = read_json(work / _PLAN_FILE)
        if work.exists() and (stored is None or stored["fingerprint"] != plan.fingerprint):
            say(f"{work}: the images or options changed since it was begun; starting over")
            remove(work)
        (work / TFDS_INFO_FILE).unlink(missing_ok=True)
        (work / PROGRESS_FOLDER).mkdir(parents=True, exist_ok=True)
        for attempt in (work / PROGRESS_FOLDER).glob(f"*{ATTEMPT_SUFFIX}"):
            shutil.rmtree(attempt, ignore_errors=True)
        write_whole(work / _PLAN_FILE, json.dumps({"fingerprint": plan.fingerprint}))


def _write_missing_shards(
    work: Path,
    plan: ShardPlan,
    write_shards: _WriteShards,
    progress: bool,
    say: Callable[[str], None],
) -> list[ShardResult]:
    """Writes what is not there yet and returns every shard's result, in the plan's order."""
    todo = [shard for shard in plan.shards if finished_result(work, shard) is None]
    if len(todo) < len(plan.shards):
        say(f"{work}: keeping {len(plan.shards) - len(todo)} of {len(plan.shards)} shards")
    check_space(work, sum(shard.num_bytes for shard in todo))
    bar = tqdm(
        total=plan.num_images,
        initial=plan.num_images - sum(len(shard.records) for shard in todo),
        unit=" images",
        mininterval=0.1 if sys.stderr.isatty() else 10,  # log files want few lines
        disable=not progress,
    )
    with bar:
        if todo:
            write_shards(work, todo, bar.update)
    results = {shard.filename: finished_result(work, shard) for shard in plan.shards}
    if missing := [filename for filename, result in results.items() if result is None]:
        raise OSError(
            errno.EIO,
            f"{work}: {len(missing)} shards are missing after the writing; run the same command "
            f"again to write them:\n{list_some(missing)}",
        )
    return list(results.values())


def _settle_bad_images(
    results: list[ShardResult],
    plan: ShardPlan,
    skip: bool,
    work: Path,
    say: Callable[[str], None],
) -> None:
    """Fails if there are bad images, or lists them in `skipped.txt`."""
    bad_images = sorted(bad for result in results for bad in result.bad_images)
    lines = [f"{filename}: {problem}" for filename, problem in bad_images]
    noun = "image" if len(lines) == 1 else "images"
    if lines and not skip:
        raise ValueError(
            f"{len(lines)} {noun} of {plan.num_images} cannot be used; mend or delete them, or "
            f"give --skip_bad_images to leave them out:\n{list_some(lines)}"
        )
    for shard, result in zip(plan.shards, results, strict=True):
        if not result.num_examples:
            raise ValueError(
                f"{shard.filename} would be empty: all {len(shard.records)} of its images are bad"
            )
    (work / _SKIPPED_FILE).unlink(missing_ok=True)
    if lines:
        write_whole(work / _SKIPPED_FILE, "\n".join(lines) + "\n")
        say(f"skipped {len(lines)} bad {noun}, listed in {_SKIPPED_FILE}:\n{list_some(lines)}")


def _write_metadata(
    work: Path,
    plan: ShardPlan,
    results: list[ShardResult],
    collection: ImageCollection,
    version: str,
) -> None:
    """Writes the plan, the checksums and TFDS' `features.json` and `dataset_info.json`."""
    import tensorflow_datasets as tfds  # takes seconds to import

    by_name = {shard.filename: result for shard, result in zip(plan.shards, results, strict=True)}
    sizes = ("num_examples", "num_bytes", "file_bytes")
    stored = {name: {key: getattr(r, key) for key in sizes} for name, r in by_name.items()}
    text = json.dumps({"fingerprint": plan.fingerprint, "shards": stored}, indent=1)
    write_whole(work / _PLAN_FILE, text)
    write_checksums(work, {name: result.sha256 for name, result in by_name.items()})
    by_split: dict[str, list[ShardResult]] = collections.defaultdict(list)
    for shard, result in zip(plan.shards, results, strict=True):
        by_split[shard.split].append(result)
    tfds.folder_dataset.write_metadata(
        data_dir=work,
        version=version,
        features={
            "image": tfds.features.Image(doc="The image file's own bytes, JPEG or PNG."),
            "label": tfds.features.ClassLabel(names=list(collection.class_names)),
            "image/filename": tfds.features.Text(doc="Path relative to the source's root."),
        },
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[result.num_examples for result in shard_results],
                num_bytes=sum(result.num_bytes for result in shard_results),
            )
            for split, shard_results in by_split.items()
        ],
        supervised_keys=("image", "label"),
        description="Labelled images, written by vit_tf's tools/make_tfrecords.py.",
        check_data=False,
    )


def _summary(
    final: Path, plan: ShardPlan, results: list[ShardResult], num_classes: int
) -> DatasetSummary:
    split_sizes: collections.Counter[str] = collections.Counter()
    for shard, result in zip(plan.shards, results, strict=True):
        split_sizes[shard.split] += result.num_examples
    return DatasetSummary(
        directory=final,
        split_sizes=dict(split_sizes),
        shard_counts=dict(collections.Counter(shard.split for shard in plan.shards)),
        num_classes=num_classes,
        num_bytes=sum(result.file_bytes for result in results),
        num_skipped=sum(len(result.bad_images) for result in results),
    )
