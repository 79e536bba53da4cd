"""TFDS datasets on disk."""

import difflib
import os
import re

import tensorflow as tf
import tensorflow_datasets as tfds

from vit_tf.data import tfrecord
from vit_tf.data.sources import WRITE_HINT, Source, content_of


class TFDSSource(Source):
    """A split of any TFDS dataset that is already on disk as TFRecords. Nothing is ever downloaded.

    Args:
      data_dir: a dataset folder (with `dataset_info.json`), a folder of its versions, or a TFDS
        data directory when `name` is given.
      split: a TFDS split expression, such as `train`, `train[:98%]` or `train+validation`.
      name: `dataset`, `dataset/config` inside `data_dir`.
      version: e.g. `3.0.2`; the highest one by default.
      image_feature: the image's name; by default the only feature of type `Image`.
      label_feature: the label's name; by default the only feature of type `ClassLabel`.

    Raises:
      FileNotFoundError: no such directory or dataset, or shard files are missing.
      ValueError: unknown split, another file format than TFRecord, or the image or label feature
        cannot be found.
    """

    def __init__(
        self,
        data_dir: str,
        split: str,
        name: str | None = None,
        version: str | None = None,
        image_feature: str | None = None,
        label_feature: str | None = None,
    ):
        folder = _dataset_folder(os.path.expanduser(str(data_dir)), name, version)
        builder = tfds.builder_from_directory(folder)
        if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
            raise ValueError(
                f"{folder} is stored as {builder.info.file_format.value}; only tfrecord is read. "
                "Convert it with `python -m tensorflow_datasets.scripts.convert_format`."
            )
        image = image_feature or _only_feature(builder.info, tfds.features.Image, "image_feature")
        label = label_feature or _only_feature(
            builder.info, tfds.features.ClassLabel, "label_feature"
        )
        names = {"image": image, "label": label}
        if f"{image}/filename" in builder.info.features:
            names["filename"] = f"{image}/filename"
        class_label = builder.info.features[label]
        super().__init__(
            name=f"{builder.info.full_name} {split}",
            segments=_split_segments(builder.info, folder, split),
            features=names,
            num_classes=class_label.num_classes,
            class_names=class_label.names,
        )


def _dataset_folder(data_dir: str, name: str | None, version: str | None) -> str:
    """The folder with `dataset_info.json` of the wanted (or highest) version."""
    if not tf.io.gfile.isdir(data_dir):
        raise FileNotFoundError(f"Data directory {data_dir} does not exist. {WRITE_HINT}")
    if not tf.io.gfile.listdir(data_dir):
        raise FileNotFoundError(f"Data directory {data_dir} is empty. {WRITE_HINT}")
    folder = os.path.join(data_dir, name) if name else data_dir
    if not tf.io.gfile.isdir(folder):
        raise FileNotFoundError(
            f"Data directory {data_dir} has no dataset {name!r}; it holds {content_of(data_dir)}. "
            f"{WRITE_HINT}"
        )
    if tf.io.gfile.exists(os.path.join(folder, "dataset_info.json")):
        return folder
    entries = [entry.rstrip("/") for entry in tf.io.gfile.listdir(folder)]
    versions = [
        entry
        for entry in entries
        if re.fullmatch(r"\d+\.\d+\.\d+", entry)
        and tf.io.gfile.exists(os.path.join(folder, entry, "dataset_info.json"))
    ]
    if not versions:
        raise FileNotFoundError(
            f"{folder} is not a TFDS dataset (no dataset_info.json); it holds "
            f"{content_of(folder)}. {WRITE_HINT}"
        )
    if version is not None and version not in versions:
        raise FileNotFoundError(f"{folder} has no version {version}; it has {', '.join(versions)}.")
    highest = max(versions, key=lambda entry: [int(part) for part in entry.split(".")])
    return os.path.join(folder, version or highest)


def _only_feature(info: tfds.core.DatasetInfo, kind: type, parameter: str) -> str:
    found = [key for key, feature in info.features.items() if isinstance(feature, kind)]
    if len(found) != 1:
        raise ValueError(
            f"{info.full_name} has {len(found)} {kind.__name__} features {found} among "
            f"{sorted(info.features)}; name the one to use with {parameter}."
        )
    return found[0]


def _split_segments(info: tfds.core.DatasetInfo, folder: str, split: str) -> list[tfrecord.Segment]:
    base_names = re.findall(r"[^\W\d]\w*(?=\[|\+|\s|$)", split)
    unknown = [name for name in base_names if name not in info.splits and name != "all"]
    try:
        instructions = info.splits[split].file_instructions
    except (KeyError, ValueError, AssertionError) as error:
        if not unknown:
            raise ValueError(f"{folder}: cannot take the split {split!r}: {error}") from error
        close = difflib.get_close_matches(unknown[0], list(info.splits))
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"{folder} has no split {split!r}; it has {', '.join(sorted(info.splits))}.{hint}"
        ) from error
    present = set(tf.io.gfile.listdir(folder))
    missing = [i.filename for i in instructions if os.path.basename(i.filename) not in present]
    if missing:
        raise FileNotFoundError(
            f"{folder}: {len(missing)} of {len(instructions)} files of split {split!r} are "
            f"missing, first {os.path.basename(missing[0])}. Copy them or write the dataset again."
        )
    return [
        tfrecord.Segment(i.filename, i.skip, i.take, tfrecord.offset_of(i.filename, i.skip))
        for i in instructions
    ]
