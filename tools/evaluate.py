r"""Evaluates models on data sets: top-1, top-5 and ReaL accuracy, per class, and what is confused.

  python tools/evaluate.py --model=vit_b16 --weights=augreg_in21k_ft_in1k \
      --dataset=imagenet=data/imagenet2012:validation

Every example of a split counts exactly once. Models, several of each:

  --model=vit_b16 --weights=B_16.npz         a name of create_model, and a tag or a file
  --weights=model.keras                      a Keras file, which holds its model
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

import model_flags
from absl import app, flags, logging

flags.adopt_module_key_flags(model_flags)  # --help shows them too
_DATASET = flags.DEFINE_multi_string("dataset", [], "NAME=DATA_DIR:SPLIT; several times")
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

    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        data = [parse_data(text) for text in _DATASET.value]
        models = model_flags.load_models_of_flags()
        rows = evaluation.evaluate_models(
            models, data, _BATCH_SIZE.value, own_preprocessing=flags.FLAGS.preprocess is None
        )
        probes = evaluation.evaluate_probes(models) if flags.FLAGS.gin_file else []
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
