r"""Turns images into sharded TFRecords that training reads, in TensorFlow Datasets' own layout.

Give --source and --out_dir; the result is <out_dir>/<name>/<version>.

  Handwritten digits that come with scikit-learn, no download:
    python tools/make_tfrecords.py --source=digits --out_dir=data

  A folder for each class, or a folder for each split with class folders inside:
    python tools/make_tfrecords.py --source=photos/ --out_dir=data --name=flowers
      photos/daisy/1.jpg         or  photos/train/daisy/1.jpg
      photos/tulip/2.png             photos/test/tulip/2.png

  A CSV with a header line; paths are relative to the CSV:
    python tools/make_tfrecords.py --source=photos/labels.csv --out_dir=data
      path,label                 or  path,split,label,class_name
      a/1.jpg,daisy                  a/1.jpg,train,0,daisy

  Any dataset of https://www.tensorflow.org/datasets/catalog (needs the network):
    python tools/make_tfrecords.py --source=tfds:cifar10 --out_dir=data

  More than one machine writes, by Apache Beam (pip install 'vit_tf[beam]'), the same bytes:
    python tools/make_tfrecords.py --source=/mnt/photos --out_dir=/mnt/data \
        --beam_pipeline_options=runner=FlinkRunner,flink_master=head:8081,parallelism=64
      Each shard is one piece of work. The workers need vit_tf, and both folders mounted under the
      same paths. Try it with runner=DirectRunner. The same flag reaches TFDS' own Beam datasets.

Images must be JPEG or PNG; their bytes are stored unchanged, in a fixed pseudo-random order, so
'train[:90%]' of a split is a fair sample. Each one is decoded before it is written: bad ones are an
error that lists them all, or left out with --skip_bad_images. Stopped at any moment, the same
command goes on where it was; the dataset appears under its name only when it is whole. The same
input gives the same bytes, which checksums.sha256 beside the shards lets you check.
"""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

# Decoding to check images needs no GPU, and libjpeg's complaints are said again with a file name.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags, logging

from vit_tf.data.digits import digits_collection
from vit_tf.data.disk import megabytes
from vit_tf.data.image_csv import read_image_csv
from vit_tf.data.image_files import ImageCollection, describe_ignored, list_image_folder
from vit_tf.data.shards import DatasetSummary, write_dataset
from vit_tf.data.tfds_shards import prepare_tfds

_SOURCE = flags.DEFINE_string(
    "source", None, "'digits', 'tfds:<name>', a folder of images, or a .csv file.", required=True
)
_OUT_DIR = flags.DEFINE_string(
    "out_dir", None, "Folder for datasets; made if it is not there.", required=True
)
_NAME = flags.DEFINE_string(
    "name", None, "The dataset's name; by default that of the source's folder."
)
_VERSION = flags.DEFINE_string("version", "1.0.0", "The dataset's version.")
_SPLIT = flags.DEFINE_string(
    "split", "train", "The split's name where neither folders nor a CSV column name splits."
)
_CLASS_NAMES = flags.DEFINE_string(
    "class_names", None, "Text file of class names in label order, one a line; sorted by default."
)
_PATH_COLUMN = flags.DEFINE_string("path_column", "path", "CSV column of image paths.")
_LABEL_COLUMN = flags.DEFINE_string(
    "label_column", "label", "CSV column of labels: class names, or integers from 0."
)
_NAME_COLUMN = flags.DEFINE_string(
    "name_column",
    None,
    "CSV column of class names beside integer labels; 'class_name' if there is one.",
)
_SPLIT_COLUMN = flags.DEFINE_string(
    "split_column", None, "CSV column of split names; 'split' if there is one."
)
_NUM_SHARDS = flags.DEFINE_list(
    "num_shards", None, "Shards a split: '8', or by split 'train=8,test=2'; by size if not given."
)
_SHARD_MEGABYTES = flags.DEFINE_integer(
    "shard_megabytes", 128, "Size of a shard where --num_shards does not say.", lower_bound=1
)
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", None, "Threads that read and check images; one a core if not given."
)
_BEAM_PIPELINE_OPTIONS = flags.DEFINE_list(
    "beam_pipeline_options",
    None,
    "Write with Apache Beam, not with threads: its flags, 'runner=FlinkRunner,parallelism=64'. "
    "A flag with commas is put in double quotes.",
)
_SKIP_BAD_IMAGES = flags.DEFINE_bool(
    "skip_bad_images", False, "Leave out unreadable images and list them in skipped.txt."
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace a dataset of the same name and version."
)

_CSV_ONLY = ("path_column", "label_column", "name_column", "split_column")
_IMAGES_ONLY = ("split", "class_names")
_NOT_TFDS = ("name", "version", "shard_megabytes", "num_workers", "skip_bad_images")


def make_dataset() -> DatasetSummary:
    """Writes what the flags ask for."""
    source = _SOURCE.value
    is_csv = source.lower().endswith(".csv")
    if not is_csv:
        _refuse_flags(_CSV_ONLY, "a CSV")
    if source.startswith("tfds:"):
        _refuse_flags(_IMAGES_ONLY + _NOT_TFDS, "images that are not TFDS' own")
        num_shards = _num_shards()
        if isinstance(num_shards, dict):
            raise ValueError("--num_shards: give one number for tfds: sources, as in 8")
        return prepare_tfds(
            source.removeprefix("tfds:"),
            _OUT_DIR.value,
            num_shards=num_shards,
            overwrite=_OVERWRITE.value,
            beam_options=_BEAM_PIPELINE_OPTIONS.value,
        )
    if source == "digits":
        _refuse_flags(_IMAGES_ONLY, "a folder or a CSV")
        collection = digits_collection()
    elif is_csv:
        collection = read_image_csv(
            source,
            path_column=_PATH_COLUMN.value,
            label_column=_LABEL_COLUMN.value,
            name_column=_NAME_COLUMN.value,
            split_column=_SPLIT_COLUMN.value,
            split=_SPLIT.value,
            class_names=_class_names(),
        )
    else:
        collection = list_image_folder(source, _SPLIT.value, _class_names())
    _describe(collection)
    return write_dataset(
        collection,
        _OUT_DIR.value,
        _NAME.value or _default_name(source),
        version=_VERSION.value,
        num_shards=_num_shards(),
        shard_bytes=_SHARD_MEGABYTES.value * 2**20,
        num_workers=_NUM_WORKERS.value,
        beam_options=_BEAM_PIPELINE_OPTIONS.value,
        skip_bad_images=_SKIP_BAD_IMAGES.value,
        overwrite=_OVERWRITE.value,
        say=print,
    )


def _refuse_flags(names: Sequence[str], only_for: str) -> None:
    """Raises ValueError if a flag was given that the source would ignore."""
    for name in names:
        if flags.FLAGS[name].present:
            raise ValueError(f"--{name} is only for {only_for}; --source is {_SOURCE.value}")


def _num_shards() -> int | dict[str, int] | None:
    given = _NUM_SHARDS.value
    if not given:
        return None
    if len(given) == 1 and given[0].isdecimal():
        return int(given[0])
    pairs = [re.fullmatch(r"(\w+)=(\d+)", part) for part in given]
    if not all(pairs):
        raise ValueError(f"--num_shards={','.join(given)}: expected 8, or train=8,test=2")
    return {pair[1]: int(pair[2]) for pair in pairs}


def _class_names() -> list[str] | None:
    if _CLASS_NAMES.value is None:
        return None
    lines = Path(_CLASS_NAMES.value).read_text(encoding="utf-8").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"{_CLASS_NAMES.value}: expected one class name a line, each once")
    return names


def _default_name(source: str) -> str:
    """Returns the name of the folder (or of the CSV's folder) in TFDS' spelling."""
    if source == "digits":
        return source
    path = Path(source).resolve()
    folder = path.parent if path.suffix.lower() == ".csv" else path
    name = re.sub(r"[^a-z0-9]+", "_", folder.name.lower()).strip("_")
    if not name or not name[0].isalpha():
        raise ValueError(f"{folder} does not make a dataset name; give one with --name")
    return name


def _describe(collection: ImageCollection) -> None:
    splits = ", ".join(f"{name} {len(rows):,}" for name, rows in sorted(collection.splits.items()))
    print(f"Found {splits} images of {len(collection.class_names)} classes.")
    if collection.ignored:
        print(f"Ignored {describe_ignored(collection.ignored)}.")


def print_summary(summary: DatasetSummary) -> None:
    """Prints what lies on disk and what to do next."""
    state = "was already complete" if summary.already_complete else "is complete"
    print(f"\n{summary.directory} {state}.")
    for split, size in sorted(summary.split_sizes.items()):
        print(f"  {split:<12} {size:>10,} examples, shards: {summary.shard_counts[split]}")
    classes = f"{summary.num_classes} classes, " if summary.num_classes else ""
    print(f"  {classes}{megabytes(summary.num_bytes)}")
    if summary.num_skipped:
        print(f"  {summary.num_skipped} bad images left out; see skipped.txt there")
    print(
        f"\nCheck:  (cd {summary.directory} && sha256sum -c checksums.sha256)\n"
        "Train:  python tools/train.py --gin_file=<recipe>.gin --model_dir=<folder> with the "
        f"recipe's data directory set to {summary.directory}"
    )


def main(argv: Sequence[str]) -> None:
    """Runs the tool; bad input ends it with a message and exit code 1."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; did you mean --source={argv[1]}?")
    try:
        summary = make_dataset()
    except (ValueError, OSError, ImportError) as error:
        logging.debug("the error's origin", exc_info=True)
        # Errors of vit_tf say all in one sentence, to which Python would add an error number.
        own = isinstance(error, OSError) and error.strerror and error.filename is None
        print(f"error: {error.strerror if own else error}", file=sys.stderr)
        sys.exit(1)
    print_summary(summary)


if __name__ == "__main__":
    app.run(main)
