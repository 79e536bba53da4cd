"""Models with given weights, as a command line names them."""

import os
from collections.abc import Sequence
from pathlib import Path

import keras

from vit_tf.checkpoints import create_model
from vit_tf.models.base import ImageModel

FRESH = "none"


def load_named(
    model: str | None, weights: str | None, names: Sequence[str] | None = None
) -> ImageModel:
    """A model with its weights, all of which must come from the file.

    Args:
      model: a name of `create_model`; None takes the model out of a `.keras` file.
      weights: a tag or path as `create_model` takes it; `"none"`: fresh ones.
      names: of its classes, for the size of its head; default: as the weights have it.

    Raises:
      ValueError: if nothing is named, or the weights leave some of the model's as they were.
      FileNotFoundError: if a file is not there.
    """
    if model is None:
        return load_keras_file(weights)
    if weights is None:
        raise ValueError(
            f"--model={model} needs --weights: a tag, a file, or none for fresh weights"
        )
    classes = {"num_classes": len(names)} if names else {}
    loaded = create_model(model, weights=None if weights == FRESH else weights, **classes)
    report = loaded.load_report
    left = {**report.reset, **report.missing, **report.mismatched} if report else {}
    if left:
        name, why = next(iter(left.items()))
        fix = "name the model that they are of, or fine-tune it first (tools/train.py)"
        if names:
            fix = f"--class_names has {len(names)} names: give one for each class of the weights"
        raise ValueError(
            f"{weights} leaves {len(left)} weights of {model} as they were made, the first is "
            f"{name}{f' ({why})' if isinstance(why, str) else ''}; {fix}"
        )
    return loaded


def load_keras_file(weights: str | None) -> ImageModel:
    """The model of a `.keras` file, which tells all of it.

    Raises:
      ValueError: if it is another file, none, or holds no model of this package.
      FileNotFoundError: if it is not there.
    """
    if not weights:
        raise ValueError(
            "name a model: --gin_file and --model_dir of a run, --model and --weights, or "
            "--weights=model.keras"
        )
    if not weights.endswith(".keras"):
        raise ValueError(
            f"--weights goes with --model: {weights} does not say whose they are, which only a "
            ".keras file does"
        )
    if not os.path.exists(weights):
        raise FileNotFoundError(f"no file {weights}")
    model = keras.saving.load_model(weights, compile=False)
    if not isinstance(model, ImageModel):
        raise ValueError(
            f"{weights} holds a {type(model).__name__}, which is no model of vit_tf.create_model"
        )
    return model


def read_class_names(file: str) -> list[str]:
    """The class names in a file, a name a line.

    Raises:
      ValueError: if a line between others is empty, or all are.
      OSError: if it cannot be read.
    """
    names = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines()]
    while names and not names[-1]:
        names.pop()
    if not all(names) or not names:
        line = names.index("") + 1 if names else 1
        raise ValueError(f"{file} must hold a class name a line; line {line} is empty")
    return names
