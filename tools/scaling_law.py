r"""Fits a scaling law to trained models, and says what more compute would bring.

  After a sweep of sizes and lengths, what more compute would reach:
    python tools/sweep.py --gin_file=gin/quickstart.gin --sweep_dir=runs/sizes \
        --gin_param='cosine.warmup = "5%"' --grid='create_model.width = [16, 32, 64]' \
        --grid='RunConfig.steps = [75, 300, 1200]'
    python tools/scaling_law.py runs/sizes --predict=1e13,1e14 --plot=runs/sizes/law.png

  Models of any origin: a CSV file with the titles compute,error,model and below them a line for
  each, such as 1e18,0.31,ViT-S/16; the column of models may be missing:
    python tools/scaling_law.py models.csv --fit=log_log --predict=1e20

Files and folders may be mixed and be several. Of a folder of runs, compute is the FLOPs of training
(3 x those of a forward pass x images seen) and error 1 - --metric after the last step; runs that
are not finished are listed. In a CSV file compute has any unit, errors are shares in (0, 1].

  --fit=saturating  E = a (C + d)^-b + c on the Pareto frontier, the models that no other beats in
                    both compute and error (Zhai et al., 2022). c is the error that no compute takes
                    away. It needs four such models, and says something with twice as many.
  --fit=log_log     E = 10^intercept C^slope on the smallest error in each of --bins equal parts of
                    log10(compute), or with --bins=0 on all models (Cherti et al., 2023)
Both may be given, and stand in one picture.

Intervals are a bootstrap over models: --confidence of the laws of --resamples other draws. They do
not hold what the law itself gets wrong far beyond the models. --fit_up_to=C tells that: the law is
fitted to models up to this compute, and measured on the frontier's models beyond.

An error is one line and exit status 1; VIT_TF_TRACEBACK=1 also shows where it was raised.
"""

import dataclasses
import json
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

from absl import app, flags, logging

_FITS = ("saturating", "log_log")
_FIT = flags.DEFINE_multi_enum("fit", ["saturating"], _FITS, "which law; may be given twice")
_BINS = flags.DEFINE_integer("bins", 5, "of the log_log law; 0 for none", lower_bound=0)
_PREDICT = flags.DEFINE_list("predict", [], "computes to say the error at, such as 1e20,1e21")
_FIT_UP_TO = flags.DEFINE_float("fit_up_to", None, "largest compute that the law is fitted to")
_METRIC = flags.DEFINE_string("metric", "accuracy", "of runs, a share of what is right")
_RESAMPLES = flags.DEFINE_integer("resamples", 500, "0 for no intervals", lower_bound=0)
_CONFIDENCE = flags.DEFINE_float("confidence", 0.95, "share of resamples in an interval")
_SEED = flags.DEFINE_integer("seed", 0, "of the resamples")
_UNIT = flags.DEFINE_string("unit", None, "of compute, for the picture; default FLOPs for runs")
_PLOT = flags.DEFINE_string("plot", None, "file to draw the picture to, such as law.png")
_FORMAT = flags.DEFINE_enum("format", "table", ["table", "json"], "what to print")


def main(argv: Sequence[str]) -> None:
    """Prints the laws of the models that the arguments name."""
    if len(argv) < 2:
        raise app.UsageError("name a CSV file with columns compute,error, or a folder of runs")
    logging.set_verbosity(logging.WARNING)
    import tensorflow as tf

    try:
        _report(argv[1:])
    except (ValueError, OSError, tf.errors.OpError) as error:
        if os.environ.get("VIT_TF_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _report(names: Sequence[str]) -> None:
    from vit_tf.analysis.png import write_png
    from vit_tf.analysis.scaling_law import plot_scaling_law

    asked = [_number(text) for text in _PREDICT.value]
    points, left_out = _read(names)
    fits = {name: _fit(name, points) for name in dict.fromkeys(_FIT.value)}
    predictions = {name: fit.predict(asked) for name, fit in fits.items()} if asked else {}
    _print(points, left_out, fits, predictions)
    for run, why in left_out.items():
        print(f"left out: {run}: {why}", file=sys.stderr)
    if _PLOT.value:
        unit = _UNIT.value or ("FLOPs" if all(map(_is_folder, names)) else "")
        write_png(plot_scaling_law(points, fits, predictions, unit), _PLOT.value)
        print(f"picture: {_PLOT.value}", file=sys.stderr)


def _read(names: Sequence[str]) -> tuple[list, dict[str, str]]:
    """Points of all files and folders, and which runs are none and why."""
    from vit_tf.analysis.scaling_law import read_scaling_points

    points, left_out = [], {}
    for name in names:
        if _is_folder(name):
            from vit_tf.training.scaling_runs import scaling_runs

            runs = scaling_runs(name, _METRIC.value)
            points += runs.points
            left_out |= runs.left_out
        else:
            points += read_scaling_points(name)
    if not points:
        lines = "\n".join(f"  {run}: {why}" for run, why in left_out.items())
        raise ValueError(f"no run is finished and measured:\n{lines}")
    return points, left_out


def _fit(name: str, points: Sequence) -> Any:
    from vit_tf.analysis.scaling_law import fit_log_log, fit_saturating

    most = math.inf if _FIT_UP_TO.value is None else _FIT_UP_TO.value
    fitted = [point for point in points if point.compute <= most]
    compute, error = [point.compute for point in fitted], [point.error for point in fitted]
    how = (_RESAMPLES.value, _CONFIDENCE.value, _SEED.value)
    if name == "log_log":
        return fit_log_log(compute, error, _BINS.value or None, *how)
    return fit_saturating(compute, error, *how)


def _print(points: Sequence, left_out: dict, fits: dict, predictions: dict) -> None:
    from vit_tf.analysis.scaling_law import describe_fit, fit_as_json, frontier_beyond

    up_to = _FIT_UP_TO.value
    beyond = None if up_to is None else frontier_beyond(points, up_to)
    if _FORMAT.value == "table":
        told = [describe_fit(name, f, predictions.get(name), beyond) for name, f in fits.items()]
        print(f"{len(points)} models", *told, sep="\n\n")
        return
    content = {
        "models": [dataclasses.asdict(point) for point in points],
        "left_out": left_out,
        "fits": {name: fit_as_json(f, predictions.get(name), beyond) for name, f in fits.items()},
    }
    print(json.dumps(content, indent=1))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--predict is numbers such as 1e20,1e21; given {text!r}") from None


def _is_folder(name: str) -> bool:
    import tensorflow as tf

    return tf.io.gfile.isdir(name)


if __name__ == "__main__":
    app.run(main)
