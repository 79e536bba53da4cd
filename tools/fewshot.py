r"""Probes frozen features: few-shot, nearest neighbours, linear and logistic, model x data set.

  A public model on two data sets, with baselines:
    python tools/fewshot.py --model=vit_b16 --weights=augreg_in21k --baselines=pixels,random \
        --dataset=data/flowers5 --dataset=digits=data/digits:train:test \
        --cache_dir=runs/features --out_dir=runs/fewshot

  A run of tools/train.py, or its export:
    python tools/fewshot.py --gin_file=gin/recipes/cifar10.gin --model_dir=runs/cifar10 \
        --checkpoint=best --dataset=data/flowers5 --out_dir=runs/fewshot
    python tools/fewshot.py --saved_model=runs/cifar10/export --dataset=data/flowers5 \
        --out_dir=runs/fewshot

  The data sets and probes of a gin file, such as big_vision's few-shot set:
    python tools/fewshot.py --model=vit_b16 --weights=augreg_in21k \
        --gin_file=gin/fewshot/big_vision.gin --gin_param="FEW_SHOT_DIR = '/data/tfds'" \
        --out_dir=runs/fewshot

A data set is [NAME=]FOLDER[:TRAIN_SPLIT:TEST_SPLIT], a folder that make_tfrecords.py or TFDS wrote
and TFDS split expressions; without them `train` and `test`. One that has a single split may be cut:
--dataset='data/omniglot_small1:train[:50%]:train[50%:]'.

--probes names few_shot, knn, linear, logistic and layers (a few-shot probe of every block's
output). --features names what they look at: pre_logits, block03/out:gap,
block10/out:token+block11/out:token, ...; --gin_param sets what else they take:

  --gin_param='FewShotProbe.choose_l2 = "leave_one_out"' --gin_param='LinearProbe.steps = 1000'

In --out_dir it writes, after each model and data set,
  results.csv   every single measurement
  results.json  the same and the summaries, with numbers of examples and classes
  results.png   few-shot accuracy over shots with 95 % intervals over seeds, a panel a data set
  layers.png    of --probes=layers: accuracy over depth

and prints the summaries as a table, in percent. With --cache_dir features are computed once for all
probes and calls; a pass that was interrupted goes on where it stopped. The exit status is 1 for an
error (one line; VIT_TF_TRACEBACK=1 in the environment also shows where it was raised).
"""

import os
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors come as exceptions, the rest is noise

from absl import app, flags, logging

_MODEL = flags.DEFINE_multi_string("model", [], "name of a model; may be given several times")
_WEIGHTS = flags.DEFINE_multi_string(
    "weights",
    [],
    "tag or path: one for all models, or one each; without --model one .keras file a model",
)
_SAVED_MODEL = flags.DEFINE_multi_string("saved_model", [], "folder of a SavedModel")
_MODEL_DIR = flags.DEFINE_multi_string("model_dir", [], "folder of a run that --gin_file describes")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "latest", "of a run: latest, best, a step or a path"
)
_GIN_FILE = flags.DEFINE_multi_string("gin_file", [], "gin file; may be given several times")
_GIN_PARAM = flags.DEFINE_multi_string("gin_param", [], "a binding that wins over the files")
_BASELINES = flags.DEFINE_list(
    "baselines", [], "pixels: the images' values; random: each model with fresh weights"
)
_DATASET = flags.DEFINE_multi_string("dataset", [], "[NAME=]FOLDER[:TRAIN_SPLIT:TEST_SPLIT]")
_PROBES = flags.DEFINE_list("probes", ["few_shot"], "few_shot, knn, linear, logistic, layers")
_FEATURES = flags.DEFINE_string("features", "pre_logits", "what --probes look at")
_SHOTS = flags.DEFINE_list("shots", [], "examples a class, for few_shot [1,5,10,25]")
_PREPROCESS = flags.DEFINE_string(
    "preprocess", None, "ops for --model and --model_dir [the model's own]"
)
_PIXELS = flags.DEFINE_string(
    "pixels", "decode|resize(32)|value_range(-1, 1)", "ops, for the baseline pixels"
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 64, "images in a batch", lower_bound=1)
_CACHE_DIR = flags.DEFINE_string("cache_dir", None, "folder of computed features")
_OUT_DIR = flags.DEFINE_string("out_dir", None, "folder of the results", required=True)
_SEED = flags.DEFINE_integer("seed", 0, "of fresh weights")

_KINDS = {
    "few_shot": "FewShotProbe",
    "knn": "KNNProbe",
    "linear": "LinearProbe",
    "logistic": "LogisticProbe",
}


def main(argv: list[str]) -> None:
    """Measures what the flags name; an expected error is one clear line."""
    if len(argv) > 1:
        _fail(f"unknown arguments: {' '.join(argv[1:])}; data sets are named by --dataset")
    logging.set_verbosity(logging.WARNING)
    # Classes of few examples are said once, at the end.
    warnings.filterwarnings("ignore", message="FewShotProbe: .* have fewer than")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    import tensorflow as tf

    from vit_tf.training import configuration

    tf.get_logger().setLevel("ERROR")  # each model and data set is traced anew, which it warns of
    try:
        os.makedirs(_OUT_DIR.value, exist_ok=True)
    except OSError as error:
        _fail(f"--out_dir={_OUT_DIR.value} cannot be written: {error.strerror}")
    try:
        _measure_all()
    except KeyboardInterrupt:
        kept = "the same command goes on" if _CACHE_DIR.value else "with --cache_dir it would go on"
        print(f"interrupted; {kept}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (ValueError, TypeError, OSError, RuntimeError, tf.errors.OpError) as error:
        if os.environ.get("VIT_TF_TRACEBACK"):
            raise
        is_op = isinstance(error, tf.errors.OpError)
        text = error.message.partition("\n")[0] if is_op else configuration.readable(error)
        _fail(f"{text}\n(VIT_TF_TRACEBACK=1 shows where it was raised)")


def _measure_all() -> None:
    """Measures every model on every data set, and writes the results after each."""
    import keras

    from vit_tf.evaluation.probe_report import results_table
    from vit_tf.evaluation.probe_study import measure
    from vit_tf.training.run import run  # noqa: F401, gin knows it then

    keras.utils.set_random_seed(_SEED.value)
    subjects = _subjects()
    baselines = frozenset(subject.name for subject in subjects if subject.baseline)
    measurements, notes = [], {}
    for study in _studies():
        for subject in subjects:
            start = time.monotonic()
            found, said = measure(subject, study, _CACHE_DIR.value)
            measurements += found
            notes |= dict.fromkeys(f"{study.data}: {note}" for note in said)
            _write(measurements, baselines)
            seconds = time.monotonic() - start
            print(f"{study.data}, {subject.name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    print(results_table(measurements))
    for note in notes:
        print(f"note: {note}")
    print(f"results: {_OUT_DIR.value}")


def _subjects() -> list[Any]:
    """The models that the flags name, then the baselines."""
    from vit_tf.evaluation.probe_study import Subject, fresh_subjects
    from vit_tf.export.saved_keras import keras_model_of, model_card
    from vit_tf.export.saved_model_folder import find_saved_model
    from vit_tf.training import configuration
    from vit_tf.training.named_models import load_models

    unknown = sorted(set(_BASELINES.value) - {"pixels", "random"})
    if unknown:
        raise ValueError(f"--baselines are pixels and random; given {', '.join(unknown)}")
    configuration.parse(_GIN_FILE.value, _GIN_PARAM.value)
    subjects, models = [], []
    if _MODEL.value or _WEIGHTS.value or _MODEL_DIR.value:
        # Without a run, gin files are of data sets and probes alone.
        gin = {"gin_files": _GIN_FILE.value, "gin_params": _GIN_PARAM.value}
        named = load_models(
            models=_MODEL.value,
            weights=_WEIGHTS.value,
            model_dirs=_MODEL_DIR.value,
            checkpoint=_CHECKPOINT.value,
            preprocess=_PREPROCESS.value,
            **(gin if _MODEL_DIR.value else {}),
        )
        models += [Subject(one.name, one.model, one.preprocess) for one in named]
        subjects += models
    for folder in _SAVED_MODEL.value:
        # It preprocesses records itself; an input needs some size.
        subjects.append(Subject(folder, find_saved_model(folder), "decode|resize(32)"))
        if "random" in _BASELINES.value:
            card = model_card(folder)
            models.append(Subject(folder, keras_model_of(card), card["preprocess"]))
    if "random" in _BASELINES.value:
        subjects += fresh_subjects(models)
    if "pixels" in _BASELINES.value:
        subjects.append(Subject("pixels", None, _PIXELS.value, baseline=True))
    if not subjects:
        raise ValueError(
            "name a model: --model=vit_b16 --weights=augreg_in21k, --gin_file and --model_dir of a "
            "run, --saved_model, or --baselines=pixels"
        )
    return subjects


def _studies() -> list[Any]:
    """The data sets of the flags and of gin, with their probes."""
    from vit_tf.data import TFDSSource
    from vit_tf.evaluation.named_data import parse_data
    from vit_tf.evaluation.probe_study import Study
    from vit_tf.training import configuration

    studies = []
    for text in _DATASET.value:
        data = parse_data(text, ("train", "test"))
        train, test = (TFDSSource(data.data_dir, split) for split in data.splits)
        studies.append(Study(data.name, (train, test), _probes(), _BATCH_SIZE.value))
    for make in configuration.bound_value("run.evaluators") or ():
        evaluator = make()
        train, test = evaluator.inputs
        sources = (train.source, test.source)
        studies.append(
            Study(evaluator.name, sources, [evaluator.probe], train.batch_size, (train, test))
        )
    if not studies:
        raise ValueError(
            "name a data set: --dataset=data/flowers5, or a --gin_file with run.evaluators such as "
            "gin/fewshot/flowers5.gin"
        )
    return studies


def _probes() -> list[Any]:
    """The probes that --probes names, as gin binds what the flags do not say."""
    from vit_tf.evaluation.probes import LayerProbes
    from vit_tf.training import configuration

    shots = {"shots": [_integer(text) for text in _SHOTS.value]} if _SHOTS.value else {}
    probes = []
    for kind in _PROBES.value:
        if kind == "layers":
            probes.append(LayerProbes(configuration.bound("FewShotProbe")(**shots)))
        elif kind in _KINDS:
            further = shots if kind == "few_shot" else {}
            make = configuration.bound(_KINDS[kind])
            probes.append(make(features=_FEATURES.value, **further))
        else:
            raise ValueError(f"--probes are {', '.join(_KINDS)} and layers; given {kind!r}")
    return probes


def _integer(text: str) -> int:
    if not text.strip().isdigit():
        raise ValueError(f"--shots are whole numbers, such as 1,5,10; given {text!r}")
    return int(text)


def _write(measurements: Sequence[Any], baselines: frozenset[str]) -> None:
    """Writes the results so far; each file is the old or the new one, never half."""
    from vit_tf.analysis.layer_curve import plot_layers
    from vit_tf.analysis.png import write_png
    from vit_tf.analysis.shot_curve import curve_of, plot_shots
    from vit_tf.analysis.whole_file import write_whole
    from vit_tf.evaluation.probe_report import csv_text, json_text

    def path(name: str) -> str:
        return os.path.join(_OUT_DIR.value, name)

    write_whole(path("results.csv"), csv_text(measurements).encode())
    write_whole(path("results.json"), json_text(measurements).encode())
    curves: dict[str, dict[str, Any]] = {}
    layers: dict[str, Any] = {}
    for m in measurements:
        if m.probe == "few_shot":
            curves.setdefault(m.data, {})[m.model] = curve_of(m.result.summary)
        elif m.probe.startswith("layers_"):
            layers[f"{m.data}, {m.model}"] = m.result.summary
    if curves:
        chance = {m.data: 1 / m.num_classes for m in measurements}
        write_png(plot_shots(curves, baselines, chance), path("results.png"))
    if layers:
        write_png(plot_layers(layers), path("layers.png"))


def _fail(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    app.run(main)
