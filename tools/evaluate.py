r"""Evaluates models on data sets: top-1, top-5 and ReaL accuracy, per class, and what is confused.

  python tools/evaluate.py --model=vit_b16 --weights=augreg_in21k_ft_in1k \
      --dataset=imagenet=data/imagenet2012:validation

Every example of a split counts exactly once. Models, several of each:

  --model=vit_b16 --weights=B_16.npz         a name of create_model, and a tag or a file
  --gin_file=... --model_dir=runs/a          a run; --checkpoint=latest, best, a step, a path
  --saved_model=runs/a/export                what --mode=export wrote, called as it is served

Data, several: --dataset=NAME=DATA_DIR:SPLIT, folders of TFDS data sets (NAME and SPLIT may be left
out; the split is then test). Without any, the evaluation data of --gin_file: so foreign TFRecords
and the reassessed labels of ImageNet (gin/data/imagenet_real.gin) are evaluated:

  python tools/evaluate.py --gin_file=gin/data/imagenet_real.gin --model=vit_b16 --weights=B_16.npz

Images are preprocessed as each model has it (model.preprocessing; that of a run's evaluation), or
for all models by --preprocess='decode|resize(224)|value_range(-1, 1)'.

Prints a table; with --out_dir=FOLDER also evaluation.csv and evaluation.json, which has accuracy by
class and the counts of each confusion.

Probes of features that --gin_file names (run.evaluators) are run too, into probes.csv and .json;
without gin that is tools/fewshot.py's.
An error is one line; VIT_TF_TRACEBACK=1 in the environment also shows where it was raised.
"""

import os
import signal
import sys
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors come as exceptions, the rest is noise

from absl import app, flags, logging

_MODEL = flags.DEFINE_multi_string("model", [], "name of a model; may be given several times")
_WEIGHTS = flags.DEFINE_multi_string(
    "weights", [], "of each --model, or one for all: a tag, a file, or none [none: fresh ones]"
)
_SAVED_MODEL = flags.DEFINE_multi_string("saved_model", [], "folder of an export; several times")
_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "gin file; may be given several times")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "a binding that wins over the files")
_MODEL_DIR = flags.DEFINE_multi_string("model_dir", [], "folder of a run; several times")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "of the runs: latest, best, step, path")
_DATASET = flags.DEFINE_multi_string("dataset", [], "NAME=DATA_DIR:SPLIT; several times")
_PREPROCESS = flags.DEFINE_string("preprocess", None, "ops for all models [each model's own]")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "images at a time", lower_bound=1)
_OUT_DIR = flags.DEFINE_string("out_dir", None, "where CSV and JSON are written [nowhere]")


def main(argv: list[str]) -> None:
    """Evaluates what the flags name; an expected error is one clear line."""
    if len(argv) > 1:
        _fail(f"unknown arguments: {' '.join(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    import tensorflow as tf

    from vit_tf.evaluation.named_data import parse_data
    from vit_tf.training import evaluate_models as evaluation
    from vit_tf.training.configuration import readable
    from vit_tf.training.named_models import load_models

    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        data = [parse_data(text) for text in _DATASET.value]
        models = load_models(
            _MODEL.value,
            _WEIGHTS.value,
            _SAVED_MODEL.value,
            _GIN_FILE.value,
            _GIN_PARAM.value,
            _MODEL_DIR.value,
            _CHECKPOINT.value,
            _PREPROCESS.value,
        )
        rows = evaluation.evaluate_models(
            models, data, _BATCH_SIZE.value, own_preprocessing=_PREPROCESS.value is None
        )
        probes = evaluation.evaluate_probes(models) if _GIN_FILE.value else []
        print(f"\n{evaluation.results_table(rows)}")
        if _OUT_DIR.value:
            print("\n" + "  ".join(evaluation.write_results(rows, _OUT_DIR.value, probes)))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (ValueError, TypeError, OSError, RuntimeError, tf.errors.OpError) as error:
        if os.environ.get("VIT_TF_TRACEBACK"):
            raise
        _fail(f"{readable(error)}\n(VIT_TF_TRACEBACK=1 shows where it was raised)")


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    app.run(main)
