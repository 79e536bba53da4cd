"""Predictions of a Keras model as its export would give them."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from vit_tf.analysis.attention_maps import attention_layers
from vit_tf.data import Preprocess
from vit_tf.export.predictors.signatures import SignaturePredictor
from vit_tf.export.serving_module import ServingModule


class KerasPredictor(SignaturePredictor):
    """Classifies encoded images with a model in this process, through its serving signatures.

    Args:
      model: the model, with its weights.
      predict: preprocessed images [batch, height, width, channels] -> `"logits"` and
        `"probabilities"`, [batch, classes].
      preprocess: evaluation's preprocessing.
      class_names: a name for each of its classes; by default their numbers.
      top_k: how many classes to name.
      name: what `describe` calls it.

    Raises:
      ValueError: if there is not a name for each class.
    """

    def __init__(
        self,
        model: keras.Model,
        predict: Callable[[tf.Tensor], dict[str, tf.Tensor]],
        preprocess: str | Preprocess,
        class_names: Sequence[str] | None = None,
        top_k: int = 5,
        name: str = "model",
    ):
        classes = model.num_classes
        names = [str(i) for i in range(classes)] if class_names is None else list(class_names)
        if len(names) != classes:
            raise ValueError(
                f"{name} has {classes} classes, but {len(names)} class names are given"
            )
        self._model = model
        self._preprocess = Preprocess(str(preprocess))
        attention = ("rollout",) if attention_layers(model) else ()
        module = ServingModule(model, predict, self._preprocess, names, top_k, attention)
        super().__init__(module.signatures(), name)

    def facts(self) -> dict[str, str]:
        """What the model is."""
        return {
            "model": getattr(self._model, "variant", None) or type(self._model).__name__,
            "parameters": f"{self._model.count_params():,}",
            "preprocess": str(self._preprocess),
            "classes": str(self._model.num_classes),
        }
