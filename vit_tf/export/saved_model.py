"""SavedModels that serve what was evaluated, from encoded image bytes to class names."""

import functools
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vit_tf.export.check import check_served
from vit_tf.export.numbered_folder import writing_next_number
from vit_tf.models.features import extract_features

_EMBEDDING = "pre_logits"


class ServingModule(tf.Module):
    """A model together with its preprocessing and class names.

    Args:
      model: the model, whose variables go into the SavedModel.
      predict: images [batch, height, width, channels], preprocessed -> `"logits"` and
        `"probabilities"`, [batch, classes].
      preprocess: evaluation's `vit_tf.data.Preprocess`.
      class_names: a name a class.
      top_k: how many classes to name.
    """

    def __init__(
        self,
        model: keras.Model,
        predict: Callable[[tf.Tensor], dict[str, tf.Tensor]],
        preprocess: Any,
        class_names: Sequence[str],
        top_k: int = 5,
    ):
        super().__init__()
        self.model = model
        self._predict = predict
        self._preprocess = preprocess
        self.class_names = tf.Variable(list(class_names), trainable=False, dtype=tf.string)
        self._top_k = min(top_k, len(class_names))
        self._shape = preprocess.image_shape
        pixels = tf.TensorSpec([None, None, None, self._shape[-1]], tf.uint8, name="images")
        self.classify_images = tf.function(self._classify_images, input_signature=[pixels])

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def classify(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies encoded images (JPEG, PNG, ...), each of any size."""
        images = self._map(self._preprocess.image_from_bytes, image_bytes)
        return self._outputs(images)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def embed(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Feature vectors of encoded images, `"pre_logits"` float32 [batch, width]."""
        return embedding(self.model, self._map(self._preprocess.image_from_bytes, image_bytes))

    def _classify_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Classifies decoded images [batch, height, width, channels], values 0 to 255."""
        return self._outputs(self._map(self._preprocess.image_from_pixels, images))

    def _map(self, function: Callable[[tf.Tensor], tf.Tensor], inputs: tf.Tensor) -> tf.Tensor:
        images = tf.map_fn(
            function, inputs, fn_output_signature=tf.TensorSpec(self._shape, tf.float32)
        )
        return tf.ensure_shape(images, [None, *self._shape])

    def _outputs(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = self._predict(images)
        top = tf.math.top_k(outputs["probabilities"], self._top_k)
        return {
            **outputs,
            "top_ids": top.indices,
            "top_probabilities": top.values,
            "top_names": tf.gather(self.class_names, top.indices),
        }


def embedding(model: keras.Model, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """What enters a model's head, `"pre_logits"` float32 [batch, width].

    Args:
      model: of `create_model`; one without pooling has its vectors averaged.
      images: [batch, height, width, channels], preprocessed.
    """
    values = tf.cast(extract_features(model, images, _EMBEDDING)[_EMBEDDING], tf.float32)
    between = list(range(1, values.shape.rank - 1))
    return {_EMBEDDING: tf.reduce_mean(values, axis=between) if between else values}


def export_saved_model(
    model: keras.Model,
    predict: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    evaluation_input: Any,
    class_names: Sequence[str],
    export_dir: str,
    facts: dict[str, Any] | None = None,
) -> str:
    """Writes a SavedModel with the evaluation's preprocessing, and checks it before it is seen.

    Signatures: `serving_default` takes `image_bytes` (strings [batch]); `image` takes `images`
    (uint8 [batch, height, width, channels]). Both return `logits`, `probabilities`, `top_ids`,
    `top_names` and `top_probabilities`. Of a model of `create_model`, `embed` takes `image_bytes`
    and returns `pre_logits` [batch, width]. `assets.extra/model_card.json` says what it is.

    Args:
      model: the model.
      predict: see `ServingModule`.
      evaluation_input: `vit_tf.data.Input` of the evaluation.
      class_names: a name for each of the model's classes.
      export_dir: folder of numbered exports; the new one gets the next number.
      facts: more for the model card.

    Returns:
      Path of the new folder.

    Raises:
      RuntimeError: if the SavedModel's outputs differ from the evaluated ones; see `check_served`.
      ValueError: if the evaluation's images cannot be read.
      OSError: if it cannot be written. Whatever is raised, nothing is left in `export_dir`.
    """
    module = ServingModule(model, predict, evaluation_input.preprocess, class_names)
    signatures = {"serving_default": module.classify, "image": module.classify_images}
    embeds = _EMBEDDING in getattr(model, "intermediate_names", ())
    if embeds:
        signatures["embed"] = module.embed
    with writing_next_number(export_dir) as (aside, final):
        tf.saved_model.save(module, aside, signatures=signatures)
        card = {
            "model": getattr(model, "variant", None) or type(model).__name__,
            "config": keras.saving.serialize_keras_object(model)["config"],
            "parameters": int(sum(np.prod(w.shape) for w in model.trainable_weights)),
            "preprocess": str(evaluation_input.preprocess),
            "class_names": list(class_names),
            "largest_difference_to_evaluation": check_served(
                aside,
                predict,
                evaluation_input,
                class_names,
                model.compute_dtype,
                embed=functools.partial(embedding, model) if embeds else None,
            ),
            **(facts or {}),
        }
        extra = os.path.join(aside, "assets.extra")
        tf.io.gfile.makedirs(extra)
        with tf.io.gfile.GFile(os.path.join(extra, "model_card.json"), "w") as file:
            file.write(json.dumps(card, indent=1, default=str))
    return final
