"""What a SavedModel of this package serves: its signatures."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

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

    @property
    def embeds(self) -> bool:
        """Whether the model has a feature vector to give, as those of `create_model` do."""
        return _EMBEDDING in getattr(self.model, "intermediate_names", ())

    def signatures(self) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
        """The functions to serve by name."""
        functions = {"serving_default": self.classify, "image": self.classify_images}
        return {**functions, "embed": self.embed} if self.embeds else functions

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
