r"""Trains, evaluates, predicts and exports what a gin file describes.

  python tools/train.py --gin_file=gin/quickstart.gin --model_dir=runs/digits

The state lies in --model_dir alone: the same command started again goes on where it stopped, and
Ctrl-C or SIGTERM saves first. Bindings on the command line win over the file:

  python tools/train.py --gin_file=gin/quickstart.gin --model_dir=runs/wide \
      --gin_param='create_model.width = 128' --gin_param='RunConfig.steps = 3000'

  --mode=train            trains
  --mode=train_and_eval   trains, and evaluates the whole evaluation split at intervals
  --mode=eval             evaluates --checkpoint (latest, best, a step or a path)
  --mode=continuous_eval  evaluates each checkpoint that another process writes
  --mode=predict          writes predictions.csv for the evaluation split
  --mode=export           writes a SavedModel that takes encoded images

Several workers: the same command on each, with TF_CONFIG set and
--gin_param='RunConfig.strategy = "multi_worker"'. TPU: RunConfig.strategy = "tpu".
"""

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors come as exceptions, the rest is noise

from absl import app, flags, logging

_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "gin file; may be given several times")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "a binding that wins over the files")
_MODEL_DIR = flags.DEFINE_string("model_dir", None, "folder of the run's state", required=True)
_MODE = flags.DEFINE_enum(
    "mode",
    "train_and_eval",
    ["train", "eval", "train_and_eval", "continuous_eval", "predict", "export"],
    "what to do",
)
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "latest", "for eval, predict and export: latest, best, a step or a path"
)
_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "where exports go [model_dir/export]")


def main(argv: list[str]) -> None:
    """Reads the configuration and does what --mode says; an expected error is one clear line."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    if not _GIN_FILE.value:
        raise app.UsageError("say what to train: --gin_file=gin/quickstart.gin")
    logging.set_verbosity(logging.WARNING)
    from vit_tf.training import configuration
    from vit_tf.training.run import run

    try:
        configuration.parse(_GIN_FILE.value, _GIN_PARAM.value)
        run(
            mode=_MODE.value,
            model_dir=_MODEL_DIR.value,
            checkpoint=_CHECKPOINT.value,
            export_dir=_EXPORT_DIR.value,
        )
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        if os.environ.get("VIT_TF_TRACEBACK"):
            raise
        print(f"error: {configuration.readable(error)}", file=sys.stderr)
        print("(VIT_TF_TRACEBACK=1 shows where it was raised)", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
