"""Downloads and prepares a dataset of TensorFlow Datasets' own catalogue, with checksums."""

from collections.abc import Sequence
from pathlib import Path

from vit_tf.data.beam_shards import pipeline_options
from vit_tf.data.disk import CHECKSUM_FILE, clear_disk_errors, file_sha256, write_checksums
from vit_tf.data.shards import DatasetSummary
from vit_tf.suggestions import did_you_mean


def prepare_tfds(
    name: str,
    out_dir: str | Path,
    *,
    num_shards: int | None = None,
    overwrite: bool = False,
    beam_options: Sequence[str] | None = None,
) -> DatasetSummary:
    """Prepares `tfds.builder(name)` under `out_dir` as TFRecord shards.

    TFDS itself makes the files appear only when they are whole.

    Args:
      name: A TFDS name, `cifar10`, `imagenet_v2/matched-frequency:3.0.0`.
      out_dir: Folder for datasets.
      num_shards: Shards of every split; TFDS chooses if None.
      overwrite: Prepare it again if it is there.
      beam_options: Flags of the Apache Beam pipeline by which TFDS prepares its large datasets;
        those that it prepares without Beam have no use for them. Beam's defaults if None.

    Returns:
      A summary of what lies on disk.

    Raises:
      ValueError: TFDS has no dataset of that name.
      ImportError: Beam is needed and not installed.
      OSError: the download failed, or the disk is full or cannot be written.
    """
    import tensorflow_datasets as tfds  # takes seconds to import

    options = None if beam_options is None else pipeline_options(beam_options)
    try:
        builder = tfds.builder(name, data_dir=out_dir, file_format="tfrecord")
    except tfds.core.DatasetNotFoundError as error:
        base = name.split("/")[0].split(":")[0]
        hint = did_you_mean(base, tfds.list_builders()) or " tfds.list_builders() names all"
        raise ValueError(f"tfds:{name}: TFDS has no dataset {base!r}.{hint}") from error
    directory = Path(builder.data_dir)
    there = directory.exists() and not overwrite
    mode = tfds.GenerateMode.REUSE_DATASET_IF_EXISTS
    if overwrite:
        mode = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS
    config = tfds.download.DownloadConfig(
        num_shards=num_shards, download_mode=mode, beam_options=options
    )
    _prepare(builder, name, config)
    shards = [path for info in builder.info.splits.values() for path in map(Path, info.filepaths)]
    if not there or not (directory / CHECKSUM_FILE).exists():
        with clear_disk_errors(directory / CHECKSUM_FILE):
            write_checksums(directory, {path.name: file_sha256(path) for path in shards})
    features = builder.info.features
    num_classes = features["label"].num_classes if "label" in features else None
    return DatasetSummary(
        directory=directory,
        split_sizes={split: info.num_examples for split, info in builder.info.splits.items()},
        shard_counts={split: info.num_shards for split, info in builder.info.splits.items()},
        num_classes=num_classes or 0,
        num_bytes=sum(path.stat().st_size for path in shards),
        num_skipped=0,
        already_complete=there,
    )


def _prepare(builder, name: str, config) -> None:
    """Runs TFDS' own preparation and says what to do where its download fails."""
    import requests
    from tensorflow_datasets.core.download import download_manager, extractor, util

    broken_download = (
        requests.exceptions.RequestException,
        util.DownloadError,
        download_manager.NonMatchingChecksumError,
        extractor.ExtractError,
    )
    try:
        builder.download_and_prepare(download_config=config)
    except broken_download as error:
        raise OSError(
            f"tfds:{name}: the download failed ({error}); check the network and run the same "
            "command again"
        ) from error
    except AssertionError as error:  # TFDS' way to ask for files that people must fetch themselves
        raise ValueError(f"tfds:{name}: TFDS cannot prepare it: {error}") from error
