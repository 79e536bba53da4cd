"""Exports of models that a command line names: what `tools/export.py` does without a run."""

from collections.abc import Sequence
from typing import Any

from vit_tf.data import Input, TFDSSource
from vit_tf.evaluation.named_data import parse_data
from vit_tf.export import ExportOptions, export_model
from vit_tf.training.named_weights import load_named, read_class_names
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
    names = read_class_names(class_names) if class_names else None
    loaded = load_named(model, weights, names)
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
