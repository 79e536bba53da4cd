"""What computes features: a model of this package, a SavedModel, or nothing (pixels)."""

import abc
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from vit_tf.analysis.fingerprints import (
    saved_graph_fingerprint,
    saved_weights_fingerprint,
    weights_fingerprint,
)
from vit_tf.data import Input
from vit_tf.evaluation.feature_names import (
    PIXELS,
    TokenLayout,
    check_features,
    make_feature,
    tensors_of,
)
from vit_tf.models.features import extract_features

# Parts of a model's configuration that its features do not depend on.
_WITHOUT_EFFECT = ("name", "origin", "preprocessing", "trainable", "variant")
_EMBED, _CLASSIFY = "embed", "serving_default"


class Featurizer(abc.ABC):
    """A frozen model as a function from what an input reads to named tensors.

    Attributes:
      name: what it is, for people.
      tensors: names of the tensors that it can give.
      layout: of its tokens.
      one_device: whether it cannot be spread over several replicas.
    """

    name: str
    tensors: Sequence[str] = ()
    layout: TokenLayout = TokenLayout()
    one_device: bool = False

    @abc.abstractmethod
    def run(self, images: tf.Tensor, tensors: Sequence[str]) -> Mapping[str, tf.Tensor]:
        """Computes tensors [batch, ...] by name, of what `batches` has as `"image"`."""

    def batches(
        self, data: Input, context: tf.distribute.InputContext | None, start_step: int
    ) -> tf.data.Dataset:
        """An input's batches from a step on: dicts of `"image"`, `"label"`, `"mask"`, `"index"`."""
        return data(context, start_step)

    @abc.abstractmethod
    def facts(self) -> dict[str, Any]:
        """What its features of an image depend on, as JSON can hold it: weights and all."""

    def preprocess(self, data: Input) -> str | None:
        """What is done to an input's images before it gets them; None if it does that itself."""
        return str(data.preprocess)

    def check(self, names: Sequence[str], data: Input | None = None) -> None:
        """Raises ValueError for features that it cannot give, or images that it does not take."""
        check_features(names, self.tensors, self.layout)

    def features(self, images: tf.Tensor, names: Sequence[str]) -> dict[str, tf.Tensor]:
        """Features by name, float32 [batch, width]; see `feature_names`."""
        wanted = tensors_of(names)
        tensors = self.run(images, wanted) if wanted else {}
        return {name: make_feature(name, images, tensors, self.layout) for name in names}


class ModelFeaturizer(Featurizer):
    """A model of `create_model`, in inference mode.

    Args:
      model: the model; its weights are read at each call, and left alone.
      **arguments: what else its call takes, such as `patch_size` of a FlexiViT.

    Raises:
      ValueError: for a model of another kind.
    """

    def __init__(self, model: keras.Model, **arguments: Any):
        if not hasattr(model, "intermediate_names"):
            raise ValueError(
                f"features are named tensors of a model of create_model; given a "
                f"{type(model).__name__}. Export another model as a SavedModel from encoded images "
                "to floats [batch, width], and give its folder"
            )
        self.model = model
        self.arguments = arguments
        self.name = getattr(model, "variant", None) or type(model).__name__
        self.tensors = model.intermediate_names
        self.layout = TokenLayout.of(model)

    def check(self, names: Sequence[str], data: Input | None = None) -> None:
        """See `Featurizer.check`."""
        super().check(names, data)
        given = data and tuple(data.image_shape)
        if data and tensors_of(names) and given != tuple(self.model.input_shape[1:]):
            raise ValueError(
                f"{self.name} takes images {list(self.model.input_shape[1:])}, and "
                f"{str(data.preprocess)!r} makes {list(given)}; its own preprocessing is "
                f"{self.model.preprocessing.ops!r}; set Input.preprocess to it, or take a model of "
                "that size"
            )

    def run(self, images: tf.Tensor, tensors: Sequence[str]) -> Mapping[str, tf.Tensor]:
        """See `Featurizer.run`."""
        return extract_features(self.model, images, tensors, **self.arguments)

    def facts(self) -> dict[str, Any]:
        """See `Featurizer.facts`."""
        config = keras.saving.serialize_keras_object(self.model)
        about = {k: v for k, v in config["config"].items() if k not in _WITHOUT_EFFECT}
        return {
            "class": config["class_name"],
            "config": about,
            "arguments": {name: str(value) for name, value in self.arguments.items()},
            "weights": weights_fingerprint(self.model),
        }


class SavedModelFeaturizer(Featurizer):
    """A SavedModel that takes encoded images, by its signatures `embed` and `serving_default`.

    Its tensors are the float outputs of these, such as `pre_logits` of an `embed` that
    `export_saved_model` made. It does its own preprocessing: an input's is not used.

    Args:
      path: folder of the SavedModel.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if no signature takes encoded images.
    """

    one_device = True

    def __init__(self, path: str | os.PathLike):
        self.path = self.name = os.fspath(path)
        if not tf.io.gfile.exists(os.path.join(self.path, "saved_model.pb")):
            raise FileNotFoundError(f"{self.path} is no SavedModel: it holds no saved_model.pb")
        # The signatures hold their variables only weakly.
        self._loaded = tf.saved_model.load(self.path)
        # Of each tensor the name of its signature and of that one's argument.
        self._signatures: dict[str, tuple[str, str]] = {}
        for name in (_CLASSIFY, _EMBED):
            self._add_outputs(name)
        if not self._signatures:
            raise ValueError(
                f"no signature {_EMBED} or {_CLASSIFY} of {self.path} takes encoded images "
                "(strings [batch]) alone and gives floats [batch, width]; it has the signatures "
                f"{', '.join(self._loaded.signatures) or 'none'}"
            )
        self.tensors = sorted(self._signatures)

    def _add_outputs(self, name: str) -> None:
        signature = self._loaded.signatures.get(name)
        if signature is None:
            return
        inputs = signature.structured_input_signature[1]
        (argument, spec), *others = inputs.items()
        if others or spec.dtype != tf.string or spec.shape.rank != 1:
            return
        for output, tensor in signature.structured_outputs.items():
            if tensor.dtype.is_floating and (tensor.shape.rank or 0) >= 2:
                self._signatures[output] = (name, argument)

    def batches(
        self, data: Input, context: tf.distribute.InputContext | None, start_step: int
    ) -> tf.data.Dataset:
        """See `Featurizer.batches`; `"image"` holds the encoded bytes."""
        source = data.source

        def example(record: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            label = tf.cast(record["label"], tf.int32)
            if source.multi_label:
                hot = tf.reduce_sum(tf.one_hot(label, source.num_classes), axis=0)
                label = tf.minimum(hot, 1.0)
            parts = {"image": record["image"], "label": label, "index": record["index"]}
            return {**parts, "mask": tf.constant(1.0)}

        records = data.encoded().skip(start_step * data.batch_size).map(example)
        return records.batch(data.batch_size).prefetch(tf.data.AUTOTUNE)

    def check(self, names: Sequence[str], data: Input | None = None) -> None:
        """See `Featurizer.check`."""
        if PIXELS in names:
            raise ValueError(
                "a SavedModel's images are preprocessed inside of it; 'pixels' go without a model"
            )
        super().check(names, data)

    def run(self, images: tf.Tensor, tensors: Sequence[str]) -> Mapping[str, tf.Tensor]:
        """See `Featurizer.run`."""
        results = {
            signature: self._loaded.signatures[signature](**{argument: images})
            for signature, argument in {self._signatures[name] for name in tensors}
        }
        return {name: results[self._signatures[name][0]][name] for name in tensors}

    def facts(self) -> dict[str, Any]:
        """See `Featurizer.facts`."""
        return {
            "saved_model": saved_graph_fingerprint(self.path),
            "weights": saved_weights_fingerprint(self.path),
        }

    def preprocess(self, data: Input) -> str | None:
        """See `Featurizer.preprocess`."""
        return None


class PixelFeaturizer(Featurizer):
    """The images themselves: the feature `"pixels"`, as a baseline."""

    name = "pixels"

    def run(self, images: tf.Tensor, tensors: Sequence[str]) -> Mapping[str, tf.Tensor]:
        """See `Featurizer.run`; there are no tensors."""
        return {}

    def facts(self) -> dict[str, Any]:
        """See `Featurizer.facts`."""
        return {}


def as_featurizer(model: "keras.Model | str | os.PathLike | Featurizer | None") -> Featurizer:
    """What computes a model's features.

    Args:
      model: a model of `create_model`, the folder of a SavedModel, a `Featurizer`, or None for
        pixels.
    """
    if model is None:
        return PixelFeaturizer()
    if isinstance(model, Featurizer):
        return model
    if isinstance(model, str | os.PathLike):
        return SavedModelFeaturizer(model)
    return ModelFeaturizer(model)
