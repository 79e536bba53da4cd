"""What a teacher's images go through: a Keras model or a SavedModel, as a function to logits."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vit_tf.analysis.fingerprints import saved_weights_fingerprint, weights_fingerprint
from vit_tf.checkpoints import load_checkpoint
from vit_tf.models.base import ImageModel
from vit_tf.models.features import extract_features
from vit_tf.models.preprocessing import Preprocessing
from vit_tf.training.teachers.scaling import BYTES, Scaling

_SAVED_MODEL_FILE = "saved_model.pb"


@dataclasses.dataclass(frozen=True)
class Answering:
    """A frozen model as a function.

    Attributes:
      logits: images [batch, height, width, channels], scaled and sized as below, to its outputs.
      scaling: of its images.
      image_size: (height, width) of its images; None if it resizes them itself.
      num_classes: of its outputs, if it tells.
      name: what it is.
      fingerprint: of its weights, in hexadecimal.
      features: the same images and names of intermediates, to these by name; None of another model
        than those of `create_model`.
    """

    logits: Callable[[tf.Tensor], Any]
    scaling: Scaling
    image_size: tuple[int, int] | None
    num_classes: int | None
    name: str
    fingerprint: str
    features: Callable[[tf.Tensor, Sequence[str]], dict[str, tf.Tensor]] | None = None


def of_keras(
    model: keras.Model, weights: str | None, facts: Mapping | Preprocessing | None
) -> Answering:
    """A Keras model, with weights from a checkpoint if one is named.

    Raises:
      ValueError: for one of `create_model` with weights that nobody loaded, or not all of them;
        and for another one of whose input nothing is told.
    """
    if weights is not None:
        if not isinstance(model, ImageModel):
            raise ValueError(
                "Teacher.weights loads a checkpoint into a model of create_model; given a "
                f"{type(model).__name__}, whose own function has to load them"
            )
        load_checkpoint(model, weights, strict=True, head="keep")
    _check_loaded(model)
    return dataclasses.replace(of_fresh(model, facts), fingerprint=weights_fingerprint(model))


def of_fresh(model: keras.Model, facts: Mapping | Preprocessing | None) -> Answering:
    """A Keras model as it is, whose answers nobody asks for: to find out what it costs.

    Raises:
      ValueError: for one whose outputs are no logits, or of whose input nothing is told.
    """
    _check_logits(model)
    model.trainable = False
    facts = _facts(facts, getattr(model, "preprocessing", None), _side(model.input_shape))
    return Answering(
        logits=lambda images: model(images, training=False),
        scaling=Scaling.of_facts(facts),
        image_size=facts.image_size,
        num_classes=getattr(model, "num_classes", None),
        name=getattr(model, "variant", None) or type(model).__name__,
        fingerprint="",
        features=functools.partial(extract_features, model)
        if isinstance(model, ImageModel)
        else None,
    )


def of_file(path: str, facts: Mapping | Preprocessing | None) -> Answering:
    """A `.keras` file or a SavedModel.

    Raises:
      FileNotFoundError: if it is neither.
      ValueError: for one of whose input nothing is told.
    """
    if tf.io.gfile.exists(os.path.join(path, _SAVED_MODEL_FILE)):
        return _of_saved_model(path, facts)
    if path.endswith(".keras") and tf.io.gfile.exists(path):
        model = keras.saving.load_model(path, compile=False)
        return dataclasses.replace(of_keras(model, None, facts), name=path)
    raise FileNotFoundError(
        f"Teacher.model {path!r} is neither a .keras file nor the folder of a SavedModel; other "
        "checkpoints go with what builds their model: Teacher.model = @teacher/create_model, "
        f"Teacher.weights = {path!r}"
    )


def _of_saved_model(path: str, facts: Mapping | Preprocessing | None) -> Answering:
    """Ours takes bytes and does its evaluation's preprocessing; others take scaled images."""
    loaded = tf.saved_model.load(path)
    signatures = dict(loaded.signatures)
    about = {"num_classes": None, "name": path, "fingerprint": saved_weights_fingerprint(path)}
    if "image" in signatures and facts is None:
        classify = signatures["image"]

        def logits(images: tf.Tensor) -> Any:
            pixels = tf.saturate_cast(tf.round(images), tf.uint8)
            return classify(images=pixels)["logits"]

        answering = Answering(logits, BYTES, image_size=None, **about)
    else:
        function, shape = _saved_function(loaded, signatures, path)
        facts = _facts(facts, None, _side(shape))
        answering = Answering(function, Scaling.of_facts(facts), facts.image_size, **about)
    # The functions hold their variables only weakly.
    object.__setattr__(answering, "loaded", loaded)
    return answering


def _saved_function(
    loaded: Any, signatures: Mapping[str, Any], path: str
) -> tuple[Callable, tuple | None]:
    """The function of a SavedModel from images, and their shape if it tells."""
    serving = signatures.get("serving_default")
    shape = None
    if serving is not None:
        (_, inputs) = serving.structured_input_signature
        images = [spec for spec in inputs.values() if spec.dtype.is_floating]
        if len(inputs) == len(images) == 1:
            (name,) = inputs
            shape = tuple(images[0].shape) if images[0].shape.rank == 4 else None
            if not callable(loaded):
                return lambda batch: serving(**{name: batch}), shape
    if callable(loaded):
        return loaded, shape
    raise ValueError(
        f"the SavedModel {path} is no function, and has no signature serving_default from images "
        f"(floats) alone; its signatures: {', '.join(signatures) or 'none'}"
    )


def _facts(
    given: Mapping | Preprocessing | None,
    own: Preprocessing | None,
    image_size: tuple[int, int] | None,
) -> Preprocessing:
    """What is given, completed by what the model says itself."""
    if isinstance(given, Preprocessing):
        return given
    if own is not None:
        return dataclasses.replace(own, **(given or {}))
    given = dict(given or {})
    size = given.pop("image_size", image_size)
    if not given or size is None:
        raise ValueError(
            "nothing tells what images the teacher takes; set Teacher.preprocessing, for example "
            "{'image_size': (224, 224), 'value_range': (-1, 1)} or with 'mean' and 'std' for "
            "images in [0, 1]"
        )
    return Preprocessing(image_size=(size, size) if isinstance(size, int) else size, **given)


def _side(shape: Any) -> tuple[int, int] | None:
    known = shape is not None and len(shape) == 4 and None not in shape[1:3]
    return tuple(shape[1:3]) if known else None


def _check_loaded(model: keras.Model) -> None:
    """Raises ValueError for a model of ours with fresh weights, or some of them.

    Scales of normalisation start at 1, and no training leaves all of them there.
    """
    if not isinstance(model, ImageModel):
        return
    report = model.load_report
    if report is not None and (report.reset or report.missing or report.mismatched):
        raise ValueError(f"the teacher's weights are not all those of its file.\n{report}")
    scales = [weight for weight in model.weights if weight.path.endswith("/gamma")]
    if scales and all(np.all(keras.ops.convert_to_numpy(scale) == 1) for scale in scales):
        raise ValueError(
            "the teacher has fresh weights; name their file, Teacher.weights = 'B_16.npz' (or a "
            "training checkpoint), or published ones, teacher/create_model.weights"
        )


def _check_logits(model: keras.Model) -> None:
    """Raises ValueError for a model that ends in a softmax layer."""
    last = model.layers[-1] if model.layers else None
    if getattr(last, "activation", None) is keras.activations.softmax or isinstance(
        last, keras.layers.Softmax
    ):
        raise ValueError(
            f"the teacher {type(model).__name__} ends in a softmax; a teacher gives logits: "
            "build it without (keras.applications: classifier_activation=None)"
        )
