"""TFDS datasets on disk."""

import os
import re

import tensorflow as tf
import tensorflow_datasets as tfds

from vit_tf import planning
from vit_tf.data import tfrecord
from vit_tf.data.sources import WRITE_HINT, Source, content_of
from vit_tf.suggestions import did_you_mean

_FILE_NAMES = ("file_name", "filename")  # the former is what TFDS's own ImageNet has


class TFDSSource(Source):
    """A split of any TFDS dataset that is already on disk as TFRecords. Nothing is ever downloaded.

    Args:
      data_dir: a dataset folder (with `dataset_info.json`), a folder of its versions, or a TFDS
        data directory when `name` is given.
      split: a TFDS split expression, such as `train`, `train[:98%]` or `train+validation`.
      name: `dataset`, `dataset/config` inside `data_dir`.
      version: e.g. `3.0.2`; the highest one by default.
      image_feature: the image's name; by default the only feature of type `Image`.
      label_feature: the label's name; by default the only feature of type `ClassLabel` or
        `Sequence(ClassLabel)`. With the latter, such as `real_label` of `imagenet2012_real`, the
        source is multi-label.
      expected_examples: how many examples the split must have: what recipes state, so that their
        length is known before the data is there (`tools/train.py --dry_run`).
      expected_classes: how many classes there must be, likewise.

    Raises:
      FileNotFoundError: no such directory or dataset, or shard files are missing.
      ValueError: unknown split, another file format than TFRecord, the image or label feature
        cannot be found or is of another type, or other numbers than expected.
    """

    def __init__(
        self,
        data_dir: str,
        split: str,
        name: str | None = None,
        version: str | None = None,
        image_feature: str | None = None,
        label_feature: str | None = None,
        expected_examples: int | None = None,
        expected_classes: int | None = None,
    ):
        data_dir = os.path.expanduser(str(data_dir))
        expected = {"examples": expected_examples, "classes": expected_classes}
        try:
            folder = dataset_folder(data_dir, name, version)
            self._init_from(folder, split, image_feature, label_feature)
        except FileNotFoundError as error:
            if not planning.is_planned() or None in expected.values():
                raise
            planning.note("data", os.path.join(data_dir, name) if name else data_dir, str(error))
            self._init_as_expected(f"{data_dir} {split}", expected_examples, expected_classes)
            return
        planning.note("data", folder)
        for what, number in expected.items():
            found = getattr(self, f"num_{what}")
            if number not in (None, found):
                raise ValueError(
                    f"{folder}: split {split!r} has {found:,} {what}, but expected_{what} is "
                    f"{number:,}. If it is the data that was meant, set "
                    f"TFDSSource.expected_{what} = {found} (or None), and what else goes by it, "
                    "such as the model's number of classes"
                )

    def _init_from(
        self, folder: str, split: str, image_feature: str | None, label_feature: str | None
    ) -> None:
        """Makes the source of what a dataset's folder holds."""
        info = dataset_info(folder)
        image = image_feature or _only_feature(info, tfds.features.Image, "image_feature")
        label, class_label = _label_feature(info, label_feature)
        names = {"image": image, "label": label}
        file_names = (f"{image}/filename", *_FILE_NAMES)
        present = [name for name in file_names if name in info.features]
        if present:
            names["filename"] = present[0]
        super().__init__(
            name=f"{info.full_name} {split}",
            segments=split_segments(info, folder, split),
            features=names,
            num_classes=class_label.num_classes,
            class_names=class_label.names,
            multi_label=class_label is not info.features[label],
        )
        version = str(info.version)
        self.dataset = {
            "name": info.full_name.removesuffix(f"/{version}"),
            "version": version,
            "split": split,
        }

    def _init_as_expected(self, name: str, examples: int, classes: int) -> None:
        """Makes a source that is only planned with: of the expected size, and not readable."""
        super().__init__(
            name=name,
            segments=[tfrecord.Segment("", 0, examples)],
            features={"image": "image", "label": "label"},
            num_classes=classes,
        )


def dataset_info(folder: str) -> tfds.core.DatasetInfo:
    """What TFDS knows of a data set in a folder.

    Raises:
      ValueError: if it is not stored as TFRecords.
    """
    info = tfds.builder_from_directory(folder).info
    if info.file_format != tfds.core.FileFormat.TFRECORD:
        raise ValueError(
            f"{folder} is stored as {info.file_format.value}; only tfrecord is read. "
            "Convert it with `python -m tensorflow_datasets.scripts.convert_format`."
        )
    return info


def dataset_folder(data_dir: str, name: str | None, version: str | None) -> str:
    """The folder with `dataset_info.json` of the wanted (or highest) version.

    Raises:
      FileNotFoundError: if there is none, naming what there is.
    """
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


def _label_feature(
    info: tfds.core.DatasetInfo, name: str | None
) -> tuple[str, tfds.features.ClassLabel]:
    """The label's name and what it, or each of several, is: the named one, or the only one."""
    labels = {key: _class_label(feature) for key, feature in info.features.items()}
    labels = {key: class_label for key, class_label in labels.items() if class_label}
    if name is None and len(labels) == 1:
        return next(iter(labels.items()))
    if name in labels:
        return name, labels[name]
    kinds = [
        f"{key} ({'one label' if labels[key] is info.features[key] else 'several labels'})"
        for key in sorted(labels)
    ]
    have = f"{info.full_name} has {len(labels)} label features: {', '.join(kinds) or 'none'}"
    if name is None:
        raise ValueError(
            f"{have}, among {sorted(info.features)}; name the one to use with label_feature."
        )
    hint = did_you_mean(name, labels, count=1)
    given = f"{name!r} is a {type(info.features[name]).__name__}" if name in info.features else ""
    raise ValueError(f"{have}; label_feature = {given or f'{name!r} is no feature'}.{hint}")


def _class_label(feature: tfds.features.FeatureConnector) -> tfds.features.ClassLabel | None:
    """The `ClassLabel` that a feature is, or that it is a sequence of."""
    if isinstance(feature, tfds.features.Sequence):
        feature = feature.feature
    return feature if isinstance(feature, tfds.features.ClassLabel) else None


def split_segments(info: tfds.core.DatasetInfo, folder: str, split: str) -> list[tfrecord.Segment]:
    """The runs of records that a split expression consists of.

    Raises:
      ValueError: for a split that there is not, with the closest one.
      FileNotFoundError: if files of it are missing.
    """
    base_names = re.findall(r"[^\W\d]\w*(?=\[|\+|\s|$)", split)
    unknown = [name for name in base_names if name not in info.splits and name != "all"]
    try:
        instructions = info.splits[split].file_instructions
    except (KeyError, ValueError, AssertionError) as error:
        if not unknown:
            raise ValueError(f"{folder}: cannot take the split {split!r}: {error}") from error
        hint = did_you_mean(unknown[0], info.splits, count=1)
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
