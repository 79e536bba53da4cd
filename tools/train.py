r"""Trains, evaluates, predicts and exports what a gin file describes.

  python tools/train.py --gin_file=gin/quickstart.gin --model_dir=runs/digits

The state lies in --model_dir alone: the same command started again goes on where it stopped;
another configuration than it began with is shown and needs --allow_config_change.
Bindings on the command line win over the file:

  python tools/train.py --gin_file=gin/quickstart.gin --model_dir=runs/wide \
      --gin_param='create_model.width = 128' --gin_param='RunConfig.steps = 3000'

  --mode=train            trains
  --mode=train_and_eval   trains, and evaluates the whole evaluation split at intervals
  --mode=eval             evaluates --checkpoint (latest, best, a step or a path)
  --mode=continuous_eval  evaluates each checkpoint that another process writes
  --mode=predict          writes predictions.csv for the evaluation split
  --mode=export           writes a SavedModel that takes encoded images

What a run would be, without training (nothing is downloaded, loaded or allocated):

  python tools/train.py --gin_file=gin/recipes/scaling_vit_g14.gin --dry_run

prints model, parameters, memory, FLOPs, batch split, data, preprocessing, steps, epochs, learning
rates (with --model_dir also as a picture), which weights each row of the tables concerns, and for
every file that the configuration names whether it is there. The exit status is 0 if all are, 2 if
only files are missing, 1 for an error.

Several workers: the same command on each, with TF_CONFIG set and
--gin_param='RunConfig.strategy = "multi_worker"'. TPU: RunConfig.strategy = "tpu".

Exit status: 0 done; 75 saved after SIGTERM or a notice of maintenance (Compute Engine, TPUs), start
the same command again; 130 saved after Ctrl-C (a second one does not wait for that); 1 an error.
An error is one line; VIT_TF_TRACEBACK=1 in the environment also shows where it was raised.
"""

import os
import signal
import sys
from types import FrameType

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors come as exceptions, the rest is noise

from absl import app, flags, logging

_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "gin file; may be given several times")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "a binding that wins over the files")
_MODEL_DIR = flags.DEFINE_string("model_dir", None, "folder of the run's state")
_MODE = flags.DEFINE_string("mode", "train_and_eval", "what to do, one of the modes above")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "for eval, predict and export: latest, best, a step or a path [latest]"
)
_EXPORT_DIR = flags.DEFINE_string("export_dir", None, "where exports go [model_dir/export]")
_TIMEOUT = flags.DEFINE_float(
    "continuous_eval_timeout",
    None,
    "seconds that continuous_eval waits for a next checkpoint [3600]",
    lower_bound=0,
)
_ALLOW_CONFIG_CHANGE = flags.DEFINE_bool(
    "allow_config_change", None, "goes on with another configuration than the run began with"
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "say what training would be, and do nothing else")

_FILES_MISSING = 2  # exit status of a dry run
_EXAMPLE = "e.g. python tools/train.py --gin_file=gin/quickstart.gin --model_dir=runs/digits"


def main(argv: list[str]) -> None:
    """Reads the configuration and does what --mode says; an expected error is one clear line."""
    if len(argv) > 1:
        _fail(f"unknown arguments: {' '.join(argv[1:])}; {_EXAMPLE}")
    if not _GIN_FILE.value:
        _fail(f"--gin_file says what to train and is missing; {_EXAMPLE}")
    if not _MODEL_DIR.value and not _DRY_RUN.value:
        _fail(f"--model_dir says where the state lies and is missing; {_EXAMPLE}")
    logging.set_verbosity(logging.WARNING)
    signal.signal(signal.SIGTERM, _leave)  # while training there are handlers that save first
    signal.signal(signal.SIGINT, _leave)
    import tensorflow as tf

    from vit_tf.training import configuration
    from vit_tf.training.run import run

    flag_values = {
        "checkpoint": _CHECKPOINT.value,
        "export_dir": _EXPORT_DIR.value,
        "continuous_eval_timeout": _TIMEOUT.value,
        "allow_config_change": _ALLOW_CONFIG_CHANGE.value,
        "only_plan": _DRY_RUN.value or None,
    }
    given = {name: value for name, value in flag_values.items() if value is not None}
    try:
        configuration.parse(_GIN_FILE.value, _GIN_PARAM.value)
        result = run(mode=_MODE.value, model_dir=_MODEL_DIR.value, **given)
    except (
        ValueError,
        TypeError,
        OSError,
        RuntimeError,
        FloatingPointError,
        tf.errors.OpError,
    ) as error:
        if os.environ.get("VIT_TF_TRACEBACK"):
            raise
        is_op = isinstance(error, tf.errors.OpError)
        text = error.message.partition("\n")[0] if is_op else configuration.readable(error)
        _fail(f"{text}\n(VIT_TF_TRACEBACK=1 shows where it was raised)")
    if _DRY_RUN.value and result.missing:
        sys.exit(_FILES_MISSING)


def _leave(number: int, frame: FrameType | None) -> None:
    """Ends the process where there is nothing to save, with the statuses named above."""
    print(f"{signal.Signals(number).name}: leaving; there is nothing to save", flush=True)
    sys.exit(128 + number if number == signal.SIGINT else os.EX_TEMPFAIL)


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    app.run(main)
