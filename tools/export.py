r"""Writes a model as a SavedModel that takes encoded images, checked against its evaluation.

A run of tools/train.py:

  python tools/export.py --gin_file=gin/recipes/cifar10.gin --model_dir=runs/cifar10 \
      --checkpoint=best

A model by its name, with public weights, a file or a training checkpoint; or a Keras file:

  python tools/export.py --model=vit_b16 --weights=B_16.npz --class_names=labels.txt \
      --images=photos/ --export_dir=served/vit_b16
  python tools/export.py --weights=model.keras --images='photos/*.jpg' --export_dir=served/mine

It ends in EXPORT_DIR[/NAME]/<number>, the next one, which appears whole or not at all: TensorFlow
Serving may watch the folder. Before, a fresh process without vit_tf loads the SavedModel, and its
answers to images of the evaluation (for a name: of --images or --dataset) must be those of
evaluation bit for bit; otherwise nothing is published.

  --precision=bfloat16            computes in bfloat16, and stores the weights of the blocks so
  --nofold_batch_norms            keeps batch norms, which otherwise are folded into the layers
                                  beside them; that changes outputs by rounding alone
  --weights_kind=raw              of a run that averages weights (RunConfig.ema) those themselves
  --attention=rollout,maps        adds the signature attention
  --image_sizes=384,448x336       adds classify_384 and classify_448x336 (height first), with the
                                  same weights at that input size
  --top_k=10                      how many classes an answer names
  --evaluate                      measures the SavedModel on the whole split, for the model card
  --serving --name=flowers        also writes the files that TensorFlow Serving is started with

The signatures: serving_default and classify (image_bytes), embed, attention, image, image_float,
tf_example, preprocess and model; `saved_model_cli show --all --dir=FOLDER` lists them. Beside them,
in assets.extra: model_card.json (parameters, data, accuracy, licence, fingerprints, versions),
labels.txt and warm-up requests. Classify with it: python tools/predict.py --help

Exit status: 0 done; 1 an error, which is one line; VIT_TF_TRACEBACK=1 in the environment also shows
where it was raised.
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors come as exceptions, the rest is noise

from absl import app, flags, logging

_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "of a run; may be given several times")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "a binding that wins over the files")
_MODEL_DIR = flags.DEFINE_string("model_dir", None, "folder of the run")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "of the run: latest, best, step or path")
_WEIGHTS_KIND = flags.DEFINE_string(
    "weights_kind", None, "of the run: averages or raw [those that it evaluates]"
)
_MODEL = flags.DEFINE_string("model", None, "a name of create_model, such as vit_b16")
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "of --model: a tag, a file, a training checkpoint, or none; or a .keras file"
)
_CLASS_NAMES = flags.DEFINE_string("class_names", None, "file with a class name a line")
_IMAGES = flags.DEFINE_multi_string("images", [], "files, folders or patterns to check with")
_DATASET = flags.DEFINE_string(
    "dataset", None, "NAME=DATA_DIR:SPLIT to check with, instead of --images"
)
_PREPROCESS = flags.DEFINE_string("preprocess", None, "ops, for --model [the model's own]")
_PROBABILITIES = flags.DEFINE_string(
    "probabilities", "softmax", "of --model: softmax, or sigmoid if it was trained so"
)
_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "where to [MODEL_DIR/export]")
_NAME = flags.DEFINE_string("name", None, "folder in EXPORT_DIR, and what clients ask for")
_PRECISION = flags.DEFINE_string(
    "precision", None, "float32 or bfloat16 [what the model computes in]"
)
_FOLD_BATCH_NORMS = flags.DEFINE_bool(
    "fold_batch_norms", True, "folds batch norms into the layers beside them"
)
_ATTENTION = flags.DEFINE_list("attention", [], "rollout, maps or both")
_IMAGE_SIZES = flags.DEFINE_list("image_sizes", [], "further input sizes: 384 or HEIGHTxWIDTH")
_TOP_K = flags.DEFINE_integer("top_k", 5, "classes that an answer names", lower_bound=1)
_SERVING = flags.DEFINE_bool("serving", False, "writes TensorFlow Serving's files beside it")
_EVALUATE = flags.DEFINE_bool("evaluate", False, "measures accuracy on the whole split")

# Each way of naming a model, and the flags that mean something in the other one alone.
_OF_RUNS = ("gin_file", "gin_param", "model_dir", "checkpoint", "weights_kind")
_OF_NAMES = (
    "model", "weights", "class_names", "images", "dataset", "preprocess", "probabilities",
)  # fmt: skip


def main(argv: list[str]) -> None:
    """Exports what the flags name; an expected error is one clear line."""
    if len(argv) > 1:
        _fail(f"unknown arguments: {' '.join(argv[1:])}; images are named by --images")
    try:
        _check_flags()
    except ValueError as error:
        _fail(str(error))
    logging.set_verbosity(logging.WARNING)
    import tensorflow as tf

    from vit_tf.training.configuration import readable

    tf.get_logger().setLevel("ERROR")
    try:
        _export()
    except (ValueError, TypeError, OSError, RuntimeError, tf.errors.OpError) as error:
        if os.environ.get("VIT_TF_TRACEBACK"):
            raise
        is_op = isinstance(error, tf.errors.OpError)
        text = error.message.partition("\n")[0] if is_op else readable(error)
        _fail(f"{text}\n(VIT_TF_TRACEBACK=1 shows where it was raised)")


def _export() -> None:
    from vit_tf.export import ExportOptions
    from vit_tf.training import configuration
    from vit_tf.training.export_named import export_named
    from vit_tf.training.run import run

    folder = _EXPORT_DIR.value or os.path.join(_MODEL_DIR.value, "export")
    if _NAME.value:
        folder = os.path.join(folder, _NAME.value)
    name = _NAME.value or os.path.basename(os.path.normpath(folder))
    options = ExportOptions(
        precision=_PRECISION.value,
        fold_batch_norms=_FOLD_BATCH_NORMS.value,
        weights=_WEIGHTS_KIND.value,
        top_k=_TOP_K.value,
        attention=tuple(_ATTENTION.value),
        image_sizes=_image_sizes(),
        serving=name if _SERVING.value else None,
        evaluate=_EVALUATE.value,
    )
    if _MODEL_DIR.value:
        configuration.parse(_GIN_FILE.value, _GIN_PARAM.value)
        run(
            "export",
            _MODEL_DIR.value,
            checkpoint=_CHECKPOINT.value,
            export_dir=folder,
            export_options=options,
        )
        return
    path = export_named(
        _MODEL.value,
        _WEIGHTS.value,
        folder,
        _IMAGES.value,
        _DATASET.value,
        _CLASS_NAMES.value,
        _PREPROCESS.value,
        _PROBABILITIES.value,
        options,
    )
    print(f"SavedModel: {path}", flush=True)


def _image_sizes() -> tuple[tuple[int, int], ...]:
    sizes = []
    for text in _IMAGE_SIZES.value:
        sides = text.strip().split("x")
        if len(sides) > 2 or not all(side.isdigit() for side in sides):
            raise ValueError(f"--image_sizes are written 384 or 448x336; given {text!r}")
        sizes.append((int(sides[0]), int(sides[-1])))
    return tuple(sizes)


def _check_flags() -> None:
    """Raises ValueError where flags are missing or of two different ways."""
    if bool(_MODEL_DIR.value) != bool(_GIN_FILE.value):
        raise ValueError("a run is named by --gin_file and --model_dir, both of them")
    others = _OF_NAMES if _MODEL_DIR.value else _OF_RUNS
    _image_sizes()
    given = [f"--{name}" for name in others if flags.FLAGS[name].present]
    if given:
        kind = "a model by its name" if _MODEL_DIR.value else "a run (--gin_file, --model_dir)"
        raise ValueError(f"{', '.join(given)}: only for the export of {kind}; leave it out")
    if not _MODEL_DIR.value and not (_MODEL.value or _WEIGHTS.value):
        raise ValueError(
            "name what to export: --gin_file and --model_dir of a run, --model and --weights, or "
            "--weights=model.keras"
        )
    if not _MODEL_DIR.value and not _EXPORT_DIR.value:
        raise ValueError("--export_dir says where to write, and is missing: --export_dir=served")


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    app.run(main)
