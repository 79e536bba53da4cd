"""The way from any Keras model to a SavedModel."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from vit_tf.export.example_images import ExampleImages
from vit_tf.export.inference_model import inference_model
from vit_tf.export.options import ExportOptions
from vit_tf.export.saved_model import export_saved_model

_PROBABILITIES = {"softmax": tf.nn.softmax, "sigmoid": tf.nn.sigmoid}


def export_model(
    model: keras.Model,
    images: Any,
    export_dir: str | os.PathLike,
    class_names: Sequence[str] | None = None,
    options: ExportOptions | None = None,
    preprocess: str | None = None,
    probabilities: str = "softmax",
    facts: dict[str, Any] | None = None,
    measure: Callable[[str], dict[str, Any]] | None = None,
) -> str:
    """Writes a model of `create_model` as a SavedModel that takes encoded images.

        model = vit_tf.create_model("vit_b16", weights="B_16.npz")
        vit_tf.export_model(model, ["photos/"], "served/vit_b16", class_names=names)

    Args:
      model: with a head; LoRA's matrices are merged into the kernels, and batch norms folded.
      images: what the served model is checked with: encoded images, names of files, folders or
        patterns, or an evaluation's `vit_tf.data.Input`, whose preprocessing is then served.
      export_dir: folder of numbered exports; the new one gets the next number.
      class_names: a name a class. Default: those of the `Input`, then numbers.
      options: see `ExportOptions`; its `weights` and `evaluate` mean nothing here.
      preprocess: ops to serve with images. Default: the model's own (`model.preprocessing`).
      probabilities: what makes them of logits, `"softmax"` or `"sigmoid"`.
      facts: more for the model card.
      measure: see `export_saved_model`.

    Returns:
      Path of the new folder.

    Raises:
      ValueError: if the model has no head, or names, images or options do not fit it.
      FileNotFoundError: if an argument names no image.
      RuntimeError: if served outputs differ from evaluated ones; nothing is published then.
      OSError: if it cannot be written.
    """
    options = options or ExportOptions()
    if not getattr(model, "num_classes", None):
        raise ValueError(
            "the model has no head, and only classifiers can be exported; make it with num_classes"
        )
    if probabilities not in _PROBABILITIES:
        raise ValueError(
            f"probabilities must be one of {', '.join(_PROBABILITIES)}; given {probabilities!r}"
        )
    if not hasattr(images, "encoded"):
        given = [images] if isinstance(images, bytes | str | os.PathLike) else images
        images = ExampleImages(given, preprocess or model.preprocessing.ops)
    if tuple(images.image_shape) != model.input_shape[1:]:
        raise ValueError(
            f"images are {tuple(images.image_shape)} after {str(images.preprocess)!r} and the "
            f"model takes {model.input_shape[1:]}"
        )
    model = inference_model(model, options)

    def predict(batch: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = tf.cast(model(batch, training=False), tf.float32)
        return {"logits": logits, "probabilities": _PROBABILITIES[probabilities](logits)}

    names = names_of_classes(class_names or images.class_names, model, exact=bool(class_names))
    return export_saved_model(
        model, predict, images, names, os.fspath(export_dir), facts, options, measure
    )


def names_of_classes(
    names: Sequence[str] | None, model: keras.Model, exact: bool = False
) -> list[str]:
    """A name for each of a model's classes: those given, then numbers.

    Args:
      names: in the order of the classes.
      model: whose classes they are.
      exact: whether there must be one for each.

    Raises:
      ValueError: if there are too many, or with `exact` too few.
    """
    names = list(names or [])
    if len(names) > model.num_classes or (exact and len(names) != model.num_classes):
        raise ValueError(
            f"there are {len(names)} class names, and the model has {model.num_classes} classes: "
            "give a name a class"
        )
    return names + [str(number) for number in range(len(names), model.num_classes)]
