r"""Shows what a model will see, and checks every record on the way.

  What a recipe trains on (or, with --input=eval, is evaluated on):
    python tools/inspect_data.py --gin_file=gin/recipes/photos.gin --out=look \
        --gin_param="DATA_DIR = 'data/photos'" --gin_param="NUM_CLASSES = 5"

  A data set that make_tfrecords.py or TFDS wrote:
    python tools/inspect_data.py --source=data/photos --split=train --out=look \
        --preprocess='decode|inception_crop(224)|flip_lr|value_range(-1, 1)'

  TFRecords that others wrote, by a pattern:
    python tools/inspect_data.py --source='/data/imagenet/train-*' --num_classes=1000 \
        --label_offset=1 --out=look --preprocess='decode|resize(224)|value_range(-1, 1)'

In --out it writes
  batch.png     images of a batch, as stored and as the model sees them, with their classes
  classes.png   how many examples each class has; empty classes are red
  sizes.png     how large the images are, and how many are smaller than what the model sees
  summary.json  all of it in numbers, with file, record and byte offset of each bad record

Every record's checksums are verified and every image decoded, and files are compared with the
checksums.sha256 beside them. The exit status is 1 if anything is corrupt, 2 if the data cannot be
inspected at all.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from absl import app, flags, logging
from tqdm import tqdm

_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "gin file; may be given several times")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "a binding that wins over the files")
_INPUT = flags.DEFINE_enum("input", "train", ["train", "eval"], "which of the recipe's inputs")
_SOURCE = flags.DEFINE_string("source", None, "folder of a data set, or a pattern of TFRecords")
_SPLIT = flags.DEFINE_string("split", "train", "split expression, for a folder")
_PREPROCESS = flags.DEFINE_string("preprocess", "decode|resize(224)", "ops, for --source")
_NUM_CLASSES = flags.DEFINE_integer("num_classes", None, "for a pattern: how many classes")
_IMAGE_FEATURE = flags.DEFINE_string("image_feature", "image/encoded", "for a pattern")
_LABEL_FEATURE = flags.DEFINE_string(
    "label_feature", None, "default: the only one of a folder, image/class/label for a pattern"
)
_MULTI_LABEL = flags.DEFINE_bool("multi_label", False, "for a pattern: any number of labels each")
_LABEL_OFFSET = flags.DEFINE_integer("label_offset", 0, "for a pattern: the first label")
_CLASS_NAMES = flags.DEFINE_string("class_names", None, "for a pattern: file of names, one a line")
_OUT = flags.DEFINE_string("out", None, "folder for pictures and summary.json", required=True)
_IMAGES = flags.DEFINE_integer("images", 16, "images on batch.png", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 5, "how long to measure images/s", lower_bound=0.1)

_MAX_PRINTED = 20
_BATCH_KEYS = ("image", "label", "mask", "index")


def make_input():
    """The `Input` that the flags name, in which bad records are skipped."""
    from vit_tf.data import Input, TFDSSource, TFRecordSource

    if _GIN_FILE.value:
        return _recipe_input()
    if not _SOURCE.value:
        raise ValueError("--gin_file or --source says what to inspect; see --help")
    if any(sign in _SOURCE.value for sign in "*?[") or Path(_SOURCE.value).is_file():
        if _NUM_CLASSES.value is None:
            raise ValueError("--num_classes is needed for a pattern of TFRecords")
        source = TFRecordSource(
            _SOURCE.value,
            _NUM_CLASSES.value,
            features={
                "image": _IMAGE_FEATURE.value,
                "label": _LABEL_FEATURE.value or "image/class/label",
            },
            class_names=_CLASS_NAMES.value,
            label_offset=_LABEL_OFFSET.value,
            multi_label=_MULTI_LABEL.value,
        )
    else:
        source = TFDSSource(_SOURCE.value, _SPLIT.value, label_feature=_LABEL_FEATURE.value)
    batch_size = min(64, source.num_examples)
    return Input(source, _PREPROCESS.value, batch_size, training=True, on_bad_record="skip")


def _recipe_input():
    import gin

    from vit_tf.training import configuration, run  # noqa: F401, run is what recipes configure

    name = f"run.{_INPUT.value}_input"
    scope = _INPUT.value
    configuration.parse(_GIN_FILE.value, _GIN_PARAM.value)
    try:
        reference = gin.query_parameter(name)
    except ValueError as error:
        raise ValueError(f"the recipe has no {name}; it names what --input={scope} is") from error
    return reference.scoped_configurable_fn(on_bad_record="skip")


def inspect(out: Path) -> dict:
    """Writes all pictures; returns the summary."""
    from vit_tf.data.survey import images_per_second, survey, wrong_checksums

    data = make_input()
    source = data.source
    names = source.class_names or [str(label) for label in range(source.num_classes)]
    print(f"{source.name}: {source.num_examples:,} records, {data.num_classes} classes")
    compared, wrong = wrong_checksums(source)
    interval = 0.1 if sys.stderr.isatty() else 10
    with tqdm(total=source.num_examples, unit=" records", mininterval=interval) as bar:
        found = survey(source, os.cpu_count() or 1, bar.update)
    summary = {
        "source": source.name,
        "preprocess": str(data.preprocess),
        "records": found.num_records,
        "readable": len(found.sizes),
        "without_label": found.num_unlabelled,
        "class_counts": dict(zip(names, found.class_counts.tolist(), strict=True)),
        "empty_classes": [n for n, c in zip(names, found.class_counts, strict=True) if not c],
        "files_compared_with_checksums": compared,
        "wrong_checksums": wrong,
        "bad_records": [vars(bad) for bad in found.bad],
    }
    if len(found.sizes):
        shorter = sorted(found.sizes.min(axis=1).tolist())
        marks = {"smallest": 0, "median": len(shorter) // 2, "largest": -1}
        summary["shorter_side"] = {name: shorter[place] for name, place in marks.items()}
        summary["images_per_second"] = round(images_per_second(data, _SECONDS.value), 1)
        _draw(out, data, found, names)
    return summary


def _draw(out: Path, data, found, names: list[str]) -> None:
    import numpy as np
    import tensorflow as tf

    from vit_tf.analysis import data_sheet
    from vit_tf.data.decode import decode_image
    from vit_tf.data.survey import encoded_image

    title = data.source.name
    before, after, labels = [], [], []
    for batch in data().take(20).as_numpy_iterator():
        for image, label, mask, index in zip(*map(batch.get, _BATCH_KEYS), strict=True):
            if mask and len(after) < _IMAGES.value:
                encoded = encoded_image(data.source, int(index))
                before.append(decode_image(tf.constant(encoded)).numpy())
                after.append(image)
                labels.append(label)
    all_names = [*names, *map(str, range(len(names), data.num_classes))]
    sheets = {
        "batch": data_sheet.plot_batch(before, np.stack(after), labels, all_names, title),
        "classes": data_sheet.plot_class_counts(found.class_counts, names, title),
        "sizes": data_sheet.plot_sizes(found.sizes, data.image_shape[:2], title),
    }
    for name, figure in sheets.items():
        figure.savefig(out / f"{name}.png", dpi=110)


def _report(summary: dict, out: Path) -> None:
    bad, wrong = summary["bad_records"], summary["wrong_checksums"]
    counts = summary["class_counts"]
    print(f"readable          {summary['readable']:,} of {summary['records']:,} records")
    print(f"class counts      {min(counts.values()):,} to {max(counts.values()):,}")
    if summary["without_label"]:
        print(f"without a label   {summary['without_label']:,}")
    if summary["empty_classes"]:
        print(f"empty classes     {', '.join(summary['empty_classes'])}")
    if "shorter_side" in summary:
        sides = summary["shorter_side"]
        print("shorter side      " + ", ".join(f"{k} {v}" for k, v in sides.items()) + " pixels")
        print(f"throughput        {summary['images_per_second']:,} images/s")
    print(f"checksums         {summary['files_compared_with_checksums']} files compared")
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    for record in bad[:_MAX_PRINTED]:
        place = f"{record['path']} record {record['record']} (byte {record['byte_offset']})"
        print(f"error: {place}: {record['problem']}", file=sys.stderr)
    if len(bad) > _MAX_PRINTED:
        print(f"error: {len(bad) - _MAX_PRINTED} more in summary.json", file=sys.stderr)
    print(f"pictures          {out}")


def main(argv: list[str]) -> None:
    """Inspects what the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    logging.set_verbosity(logging.ERROR)  # what is bad is reported once, at the end
    out = Path(_OUT.value)
    try:
        out.mkdir(parents=True, exist_ok=True)
        summary = inspect(out)
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    _report(summary, out)
    sys.exit(1 if summary["bad_records"] or summary["wrong_checksums"] else 0)


if __name__ == "__main__":
    app.run(main)
