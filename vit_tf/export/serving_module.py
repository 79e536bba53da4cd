"""What a SavedModel of this package serves: its signatures."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from vit_tf.data.decode import without_calls
from vit_tf.export.attention import attention as attention_of
from vit_tf.export.attention import check_attention
from vit_tf.export.forms import Form
from vit_tf.export.row_errors import (
    blank_failed,
    describe_examples,
    describe_images,
    map_rows,
    parse_example,
)
from vit_tf.models.features import extract_features

_EMBEDDING, _TOKENS = "pre_logits", "encoded"

Outputs = dict[str, tf.Tensor]


class ServingModule(tf.Module):
    """A model together with its preprocessing and class names.

    An image that cannot be read costs no more than its own row: `error` says why, and the row's
    numbers are 0, its ids -1 and its names `""`.

    Args:
      model: the model, whose variables go into the SavedModel.
      predict: images [batch, height, width, channels], preprocessed -> `"logits"` and
        `"probabilities"`, [batch, classes].
      preprocess: evaluation's `vit_tf.data.Preprocess`.
      class_names: a name a class.
      top_k: how many classes to name.
      attention: what the signature `attention` gives, out of `"rollout"` and `"maps"`; see
        `vit_tf.export.attention`. There is no such signature if it is empty.
      forms: by name, see `forms_of`: `classify_<name>` is like `classify` in another form, such as
        for images resized to 384 with resized positions, with the same weights.

    Raises:
      ValueError: the attention is unknown, or the model has none.
    """

    def __init__(
        self,
        model: keras.Model,
        predict: Callable[[tf.Tensor], Outputs],
        preprocess: Any,
        class_names: Sequence[str],
        top_k: int = 5,
        attention: Sequence[str] = (),
        forms: Mapping[str, Form] | None = None,
    ):
        super().__init__()
        check_attention(model, attention)
        # TensorFlow Serving's loader restores no variables of a Keras model that is tracked itself,
        # so that its variables are, and the model is hidden in a function.
        self._weights = [variable.value for variable in model.variables]
        self._model = lambda: model
        self._preprocess = preprocess
        self.class_names = tf.Variable(list(class_names), trainable=False, dtype=tf.string)
        self._top_k = min(top_k, len(class_names))
        self._attention = tuple(attention)
        self._forms = {
            name: ServingModule(model, form.predict, form.preprocess, class_names, top_k)
            for name, form in (forms or {}).items()
        }
        self._images = tf.TensorSpec([None, *preprocess.image_shape], tf.float32, name="images")
        # What several signatures do is one function each, so that they share its graph.
        strings = tf.TensorSpec([None], tf.string)
        self._predict = tf.function(predict, input_signature=[self._images])
        self._read = tf.function(self._read_images, input_signature=[strings])
        self._explain = tf.function(
            lambda encoded: describe_images(encoded, str(preprocess)), input_signature=[strings]
        )

    @property
    def model(self) -> keras.Model:
        """The model that is served."""
        return self._model()

    @property
    def embeds(self) -> bool:
        """Whether the model has a feature vector to give, as those of `create_model` do."""
        return _EMBEDDING in getattr(self.model, "intermediate_names", ())

    def signatures(self) -> dict[str, Callable[..., Outputs]]:
        """The functions to serve by name.

        `serving_default` and `classify`, `tf_example`, `preprocess`, of models of `create_model`
        `embed`, and where there are `attention` and `classify_<form>`, take strings [batch];
        `image`, `image_float` and `model` take `images`. Each is described at its method.
        """
        encoded = tf.TensorSpec([None], tf.string, name="image_bytes")
        examples = tf.TensorSpec([None], tf.string, name="examples")
        any_size = [None, None, None, self._images.shape[-1]]
        pixels = tf.TensorSpec(any_size, tf.uint8, name="images")
        floats = tf.TensorSpec(any_size, tf.float32, name="images")
        classify = _function(self.classify, encoded)
        functions = {
            "serving_default": classify,
            "classify": classify,
            "image": _function(self._classify_images, pixels),
            "image_float": _function(self._classify_images, floats),
            "tf_example": _function(self.classify_examples, examples),
            "preprocess": _function(self.preprocess, encoded),
            "model": _function(lambda images: self._predict(images), self._images),
        }
        if self.embeds:
            functions["embed"] = _function(self.embed, encoded)
        if self._attention:
            functions["attention"] = _function(self.attention, encoded)
        for name, module in self._forms.items():
            functions[f"classify_{name}"] = _function(module.classify, encoded)
        return functions

    def classify(self, image_bytes: tf.Tensor) -> Outputs:
        """Classifies encoded images (JPEG, PNG, ...), string [batch], each of any size.

        Returns:
          `logits` and `probabilities` float32 [batch, classes]; of the likeliest classes `top_ids`
          int32, `top_probabilities` float32 and `top_names` string [batch, k]; `error` string
          [batch].
        """
        return self._on_encoded(self._outputs, image_bytes)

    def embed(self, image_bytes: tf.Tensor) -> Outputs:
        """Feature vectors of encoded images; see `embedding`; and `error`."""
        return self._on_encoded(lambda images: embedding(self.model, images), image_bytes)

    def attention(self, image_bytes: tf.Tensor) -> Outputs:
        """Attention over encoded images; see `vit_tf.export.attention.attention`; and `error`."""
        return self._on_encoded(
            lambda images: attention_of(self.model, images, self._attention), image_bytes
        )

    def preprocess(self, image_bytes: tf.Tensor) -> Outputs:
        """What the model gets of encoded images: `images` [batch, height, width, channels]."""
        return self._on_encoded(lambda images: {"images": images}, image_bytes)

    def classify_examples(self, examples: tf.Tensor) -> Outputs:
        """Like `classify` for serialized `tf.train.Example`s, the image in `image/encoded`."""
        encoded, unparsed = map_rows(parse_example, examples, tf.TensorSpec([], tf.string))
        images, failed = self._read(encoded)
        return blank_failed(
            self._outputs(images),
            failed,
            lambda: describe_examples(
                examples[failed], unparsed[failed], self._explain(encoded[failed])
            ),
        )

    def _classify_images(self, images: tf.Tensor) -> Outputs:
        """Classifies decoded images [batch, height, width, channels], values 0 to 255."""
        return self._outputs(self._map(self._preprocess.image_from_pixels, images))

    def _on_encoded(
        self, function: Callable[[tf.Tensor], Outputs], image_bytes: tf.Tensor
    ) -> Outputs:
        """What a function of preprocessed images makes of encoded ones, and `error`."""
        images, failed = self._read(image_bytes)
        return blank_failed(function(images), failed, lambda: self._explain(image_bytes[failed]))

    def _read_images(self, encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Preprocessed images, and which could not be read."""
        with without_calls():
            return map_rows(self._preprocess.image_from_bytes, encoded, self._image)

    def _map(self, function: Callable[[tf.Tensor], tf.Tensor], inputs: tf.Tensor) -> tf.Tensor:
        images = tf.map_fn(function, inputs, fn_output_signature=self._image)
        return tf.ensure_shape(images, self._images.shape)

    @property
    def _image(self) -> tf.TensorSpec:
        """One of the model's images."""
        return tf.TensorSpec(self._images.shape[1:], tf.float32)

    def _outputs(self, images: tf.Tensor) -> Outputs:
        outputs = self._predict(images)
        top = tf.math.top_k(outputs["probabilities"], self._top_k)
        return {
            **outputs,
            "top_ids": top.indices,
            "top_probabilities": top.values,
            "top_names": tf.gather(self.class_names, top.indices),
        }


def embedding(model: keras.Model, images: tf.Tensor) -> Outputs:
    """What enters a model's head, and its last tokens.

    Args:
      model: of `create_model`; one without pooling has its vectors averaged.
      images: [batch, height, width, channels], preprocessed.

    Returns:
      `"pre_logits"` float32 [batch, width] and, of a model that has them, `"tokens"` float32
      [batch, tokens, width]: its `encoded`.
    """
    named = [name for name in (_EMBEDDING, _TOKENS) if name in model.intermediate_names]
    features = {
        name: tf.cast(values, tf.float32)
        for name, values in extract_features(model, images, named).items()
    }
    outputs = {_EMBEDDING: _vectors(features[_EMBEDDING])}
    if _TOKENS in features and features[_TOKENS].shape.rank == 3:
        outputs["tokens"] = features[_TOKENS]
    return outputs


def _vectors(values: tf.Tensor) -> tf.Tensor:
    between = list(range(1, values.shape.rank - 1))
    return tf.reduce_mean(values, axis=between) if between else values


def _function(
    method: Callable[[tf.Tensor], Outputs], spec: tf.TensorSpec
) -> Callable[..., Outputs]:
    return tf.function(method, input_signature=[spec])
