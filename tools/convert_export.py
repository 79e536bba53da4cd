r"""Converts an exported SavedModel for other runtimes, and measures the results on a split.

  python tools/convert_export.py --saved_model=runs/cifar10/export \
      --output_dir=runs/cifar10/converted --data_dir=/data/cifar10

Each kind becomes a folder of --output_dir: the runtime's files, and metadata.json with class names,
preprocessing and the SavedModel's fingerprint. What is there already and was made of the same
SavedModel is kept; so the command that was stopped goes on, and measures again.

  litert_float32 litert_float16 litert_dynamic_int8 litert_int8   .tflite, built-in operations alone
  onnx                                                            .onnx, for onnxruntime
  openvino openvino_bf16                                          .xml and .bin

Every result is run and compared with the SavedModel before it is there: float32 kinds have to give
its outputs to 1e-4. With --data_dir (TFDS shards, see tools/make_tfrecords.py) a table follows of
all kinds next to the SavedModel on the whole of --split: size, largest difference, share of images
with the same class, accuracy, images per second; and the same in --output_dir/comparison.json.

litert_int8 takes the ranges of its activations from images of --representative_split (by default
--split), and so needs --data_dir.

Exit status: 0 done; 1 an error, one line; VIT_TF_TRACEBACK=1 in the environment also shows where it
was raised.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors come as exceptions, the rest is noise

from absl import app, flags, logging

_SAVED_MODEL = flags.DEFINE_string(
    "saved_model", None, "folder of the SavedModel, or of numbered ones (the newest)", required=True
)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "gets a folder for each kind", required=True)
_KINDS = flags.DEFINE_list("kinds", ["all"], "kinds to convert to, see above")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "TFDS data set, or data directory with --dataset")
_DATASET = flags.DEFINE_string("dataset", None, "name of the data set in --data_dir")
_SPLIT = flags.DEFINE_string("split", "test", "what to measure on")
_REPRESENTATIVE_SPLIT = flags.DEFINE_string(
    "representative_split", None, "where litert_int8 has its images from [--split]"
)
_REPRESENTATIVE_IMAGES = flags.DEFINE_integer(
    "representative_images", 100, "how many images litert_int8 takes", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "images at a time", lower_bound=1)
_NUM_THREADS = flags.DEFINE_integer(
    "num_threads", None, "threads of a runtime [all]", lower_bound=1
)


def main(argv: list[str]) -> None:
    """Converts and measures; an expected error is one clear line."""
    if len(argv) > 1:
        _fail(f"unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.ERROR)
    import tensorflow as tf

    try:
        _convert_and_compare()
    except (ValueError, OSError, ImportError, RuntimeError, tf.errors.OpError) as error:
        if os.environ.get("VIT_TF_TRACEBACK"):
            raise
        text = error.message if isinstance(error, tf.errors.OpError) else str(error)
        _fail(f"{text}\n(VIT_TF_TRACEBACK=1 shows where it was raised)")


def _convert_and_compare() -> None:
    from vit_tf.data import TFDSSource
    from vit_tf.export.runtimes import variants
    from vit_tf.export.runtimes.comparison import comparison_table
    from vit_tf.export.runtimes.served_model import ServedModel

    def source(split: str) -> TFDSSource:
        return TFDSSource(_DATA_DIR.value, split, _DATASET.value)

    kinds = None if _KINDS.value == ["all"] else _KINDS.value
    served = ServedModel(_SAVED_MODEL.value)
    images = None
    if _DATA_DIR.value:
        measured_on = source(_SPLIT.value)
        images = variants.representative_images(
            served,
            source(_REPRESENTATIVE_SPLIT.value) if _REPRESENTATIVE_SPLIT.value else measured_on,
            _REPRESENTATIVE_IMAGES.value,
        )
    folders = variants.convert_kinds(served, _OUTPUT_DIR.value, kinds, images, say=_say)
    if images is not None:
        rows = variants.compare_kinds(
            served,
            _OUTPUT_DIR.value,
            folders,
            measured_on,
            batch_size=_BATCH_SIZE.value,
            num_threads=_NUM_THREADS.value,
        )
        _say(f"\n{rows[0].images:,} images of {measured_on.name}:\n\n{comparison_table(rows)}")


def _say(message: str) -> None:
    print(message, flush=True)


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    app.run(main)
