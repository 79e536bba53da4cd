"""Exports of models that a command line names: what `tools/export.py` does without a run."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from vit_tf.checkpoints import create_model
from vit_tf.data import Input, TFDSSource
from vit_tf.evaluation.named_data import parse_data
from vit_tf.export import ExportOptions, export_model
from vit_tf.models.base import ImageModel
from vit_tf.training.named_models import FRESH
from vit_tf.training.served_accuracy import served_accuracy

_BATCH_SIZE = 64


def export_named(
    model: str | None,
    weights: str | None,
    export_dir: str,
    images: Sequence[str] = (),
    dataset: str | None = None,
    class_names: str | None = None,
    preprocess: str | None = None,
    probabilities: str = "softmax",
    options: ExportOptions | None = None,
) -> str:
    """Exports a model by its name and weights.

    Args:
      model: a name of `create_model`; None takes the model out of a `.keras` file.
      weights: a tag or path as `create_model` takes it (`.npz`, `.pth`, `.safetensors`, `.keras`, a
        training checkpoint); `"none"`: fresh ones.
      export_dir: folder of numbered exports.
      images: files, folders or patterns of the images that the export is checked with.
      dataset: a data set to check with, and to evaluate on, instead: see `parse_data`.
      class_names: file with a name a line.
      preprocess: ops. Default: the model's own.
      probabilities: see `export_model`.
      options: see `ExportOptions`.

    Returns:
      Path of the new folder.

    Raises:
      ValueError: for arguments that are missing or do not go together, and where the weights leave
        some of the model's as they were.
      FileNotFoundError: if a file is not there.
    """
    options = options or ExportOptions()
    if bool(images) == bool(dataset):
        raise ValueError(
            "an export is checked with real images: give --images=photos/ or "
            "--dataset=NAME=DATA_DIR:SPLIT, and not both"
        )
    if options.evaluate and not dataset:
        raise ValueError("--evaluate needs labels: give --dataset=NAME=DATA_DIR:SPLIT")
    if options.weights:
        raise ValueError("--weights_kind chooses among the weights of a run (--model_dir)")
    names = _names(class_names) if class_names else None
    loaded = _load(model, weights, names)
    ops = preprocess or loaded.preprocessing.ops
    checked_with: Any = images
    if dataset:
        named = parse_data(dataset)
        source = TFDSSource(named.data_dir, named.splits[0])
        checked_with = Input(source, ops, _BATCH_SIZE, training=False)
        if checked_with.num_classes > loaded.num_classes:
            raise ValueError(
                f"the data has {checked_with.num_classes} classes and the model "
                f"{loaded.num_classes}; name another --dataset, or check with --images"
            )
    return export_model(
        loaded,
        checked_with,
        export_dir,
        names,
        options,
        preprocess=ops,
        probabilities=probabilities,
        facts={"checkpoint": weights},
        measure=served_accuracy(checked_with) if options.evaluate else None,
    )


def _load(model: str | None, weights: str | None, names: Sequence[str] | None) -> keras.Model:
    """The model with its weights, all of which must come from the file."""
    if model is None:
        return _load_keras(weights)
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


def _load_keras(weights: str | None) -> keras.Model:
    if not weights or not weights.endswith(".keras"):
        raise ValueError(
            "name what to export: --gin_file and --model_dir of a run, --model and --weights, or "
            "--weights=model.keras"
        )
    if not os.path.exists(weights):
        raise FileNotFoundError(f"no file {weights}")
    model = keras.saving.load_model(weights, compile=False)
    if not isinstance(model, ImageModel):
        raise ValueError(
            f"{weights} holds a {type(model).__name__}, which is no model of vit_tf.create_model"
        )
    return model


def _names(file: str) -> list[str]:
    names = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines()]
    while names and not names[-1]:
        names.pop()
    if not all(names) or not names:
        line = names.index("") + 1 if names else 1
        raise ValueError(f"{file} must hold a class name a line; line {line} is empty")
    return names
