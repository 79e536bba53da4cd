"""Models as a command line names them: by their name, by a run's folder, or as a SavedModel."""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

import vit_tf.training.run  # noqa: F401  gin knows `run` by it
from vit_tf.checkpoints import create_model
from vit_tf.data.sized import fill_size
from vit_tf.export.saved_keras import keras_model_of, model_card
from vit_tf.training import configuration
from vit_tf.training.estimator import Estimator
from vit_tf.training.named_weights import FRESH, load_keras_file


@dataclasses.dataclass(frozen=True)
class NamedModel:
    """A model that is to be measured.

    Args:
      name: what tables call it.
      model: the Keras model, with its weights.
      preprocess: evaluation's preprocessing, a string of ops.
      predict_values: preprocessed images [batch, height, width, channels] -> `"logits"` and
        `"probabilities"`, float32 [batch, classes].
      saved_model: folder of the SavedModel that it was read from, if it was.
    """

    name: str
    model: keras.Model
    preprocess: str
    predict_values: Callable[[tf.Tensor], dict[str, tf.Tensor]]
    saved_model: str | None = None

    def predict(self, images: tf.Tensor) -> tf.Tensor:
        """Preprocessed images [batch, height, width, channels] -> logits [batch, classes]."""
        return self.predict_values(images)["logits"]


def load_models(
    models: Sequence[str] = (),
    weights: Sequence[str] = (),
    saved_models: Sequence[str] = (),
    gin_files: Sequence[str] = (),
    gin_params: Sequence[str] = (),
    model_dirs: Sequence[str] = (),
    checkpoint: str = "latest",
    preprocess: str | None = None,
) -> list[NamedModel]:
    """Loads what the flags of a tool name, in the order of the arguments here.

    Args:
      models: names of `create_model`, such as `"vit_b16"`.
      weights: of each of them a tag or path as `create_model` takes it, or `"none"`; one for all
        if it is a single one. Default: fresh ones. Without any name: `.keras` files, which hold
        models as a whole.
      saved_models: folders that `tools/train.py --mode=export` wrote.
      gin_files: describe the runs in `model_dirs`, or if no model is named at all one with fresh
        weights; beside named models, no more than data (see `evaluate_models`).
      gin_params: bindings that win over the files.
      model_dirs: folders of runs.
      checkpoint: of a run: `"latest"`, `"best"`, a step or a path; `"none"`: fresh weights.
      preprocess: used instead of each model's own.

    Returns:
      The models; of a run the preprocessing is that of its evaluation.

    Raises:
      ValueError: if nothing is named, arguments do not go together, or a name is wrong.
      FileNotFoundError: if a file or checkpoint is not there.
    """
    if model_dirs and not gin_files:
        raise ValueError("--model_dir needs --gin_file, which says what the run's model is")
    named = _of_names(models, weights)
    named += [_of_saved_model(folder) for folder in saved_models]
    if gin_files:
        configuration.parse(gin_files, gin_params)
        named += [_of_run(folder, checkpoint) for folder in model_dirs]
        if not named and configuration.bound_value("run.task") is not None:
            named = [_of_run(None, FRESH)]
    if not named:
        raise ValueError(
            "name a model: --model=vit_b16 --weights=augreg_in21k, or --gin_file and --model_dir "
            "of a run, or --saved_model"
        )
    if preprocess is not None:
        named = [dataclasses.replace(one, preprocess=preprocess) for one in named]
    return _distinct(named)


def _of_names(models: Sequence[str], weights: Sequence[str]) -> list[NamedModel]:
    """Models by their names, each with its weights; without names those of `.keras` files."""
    if not models:
        return [_of_model(os.path.basename(path), load_keras_file(path)) for path in weights]
    if len(weights) not in (0, 1, len(models)):
        raise ValueError(
            f"--weights goes with --model: one for all models or one each; given {len(weights)} "
            f"for {len(models)}"
        )
    of_each = weights if len(weights) == len(models) else [*weights, FRESH][:1] * len(models)
    named = []
    for name, source in zip(models, of_each, strict=True):
        fresh = source == FRESH
        model = create_model(name, weights=None if fresh else source)
        named.append(_of_model(f"{name} {'fresh' if fresh else os.path.basename(source)}", model))
    return named


def _of_model(title: str, model: keras.Model) -> NamedModel:
    values = functools.partial(softmax_values, model)
    return NamedModel(title, model, model.preprocessing.ops, values)


def _of_saved_model(folder: str) -> NamedModel:
    card = model_card(folder)
    model = keras_model_of(card)
    values = functools.partial(softmax_values, model)
    return NamedModel(folder, model, card["preprocess"], values, saved_model=card["folder"])


def _of_run(model_dir: str | None, checkpoint: str) -> NamedModel:
    """The model of a run as the parsed configuration describes it."""
    task = configuration.bound_value("run.task")
    if task is None:
        raise ValueError("the configuration names no task, e.g. run.task = @Classification")
    task = task()
    # Without a folder there is nothing to find, and nothing is written.
    folder = model_dir or os.devnull
    estimator = Estimator(task, folder, configuration.bound("RunConfig")())
    model, about = estimator.model, "fresh"
    if checkpoint != FRESH:
        about = f"step {estimator.restore(checkpoint)}"
    title = os.path.basename(os.path.normpath(model_dir)) if model_dir else "model"
    preprocess = configuration.bound_value("eval/Input.preprocess") or model.preprocessing.ops
    preprocess = fill_size(str(preprocess), model.preprocessing.image_size)
    values = functools.partial(task.predict_values, model)
    return NamedModel(f"{title} {about}", model, preprocess, values)


def softmax_values(model: keras.Model, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """`"logits"` and `"probabilities"`, float32 [batch, classes], of preprocessed images."""
    logits = tf.cast(model(images, training=False), tf.float32)
    return {"logits": logits, "probabilities": tf.nn.softmax(logits)}


def _distinct(named: Sequence[NamedModel]) -> list[NamedModel]:
    """The same models, those that share a name numbered."""
    names: list[str] = []
    for one in named:
        same = sum(name == one.name or name.startswith(f"{one.name} (") for name in names)
        names.append(f"{one.name} ({same + 1})" if same else one.name)
    return [dataclasses.replace(one, name=n) for one, n in zip(named, names, strict=True)]
