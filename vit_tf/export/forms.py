"""The other forms in which a model is served beside the one that was evaluated."""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import keras
import tensorflow as tf

from vit_tf.data.preprocess import Preprocess
from vit_tf.export.image_sizes import predict_at, preprocess_at, size_name
from vit_tf.models.arguments import as_pair

Predict = Callable[[tf.Tensor], dict[str, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Form:
    """A way to classify images with the weights that were evaluated.

    Args:
      preprocess: of its images.
      predict: preprocessed images -> `"logits"` and `"probabilities"`.
    """

    preprocess: Preprocess
    predict: Predict


def forms_of(
    model: keras.Model,
    predict: Predict,
    preprocess: Preprocess,
    image_sizes: Sequence[int | tuple[int, int]] = (),
) -> dict[str, Form]:
    """What a model can be served as, by the name behind `classify_`.

    Args:
      model: of `create_model`, or any other, which has no forms.
      predict: calls the model.
      preprocess: the evaluation's.
      image_sizes: input sizes in pixels, a side or (height, width), each a form such as `384`.

    Returns:
      The forms that `model.forms` names, such as `full` and `pruned`, and those of other sizes.

    Raises:
      ValueError: the model cannot take images of a size.
    """
    forms = {
        name: Form(preprocess, _within(context, predict))
        for name, context in getattr(model, "forms", {}).items()
    }
    for size in (as_pair("image_sizes", size) for size in image_sizes):
        resized = preprocess_at(model, size, preprocess)
        forms[size_name(size)] = Form(resized, predict_at(model, size, predict))
    return forms


def _within(context: Callable[[], AbstractContextManager], predict: Predict) -> Predict:
    def predict_within(images: tf.Tensor) -> dict[str, tf.Tensor]:
        with context():
            return predict(images)

    return predict_within
