"""Co-training of submodels (Touvron et al., 2022, "Co-training 2^L Submodels")."""

from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from vit_tf.data import Mixing
from vit_tf.layers.stochastic_depth import StochasticDepth
from vit_tf.training.tasks.base import Batch, Values
from vit_tf.training.tasks.classification import Classification


class Cosub(Classification):
    """Each image passes two submodels that stochastic depth makes, and they teach each other.

    The batch is put behind itself, so that both passes are one and each image draws its masks
    twice. With o1 and o2 for the two outputs, the loss is
    [BCE(o1, y) + BCE(o2, y) + BCE(o1, sigmoid(o2)) + BCE(o2, sigmoid(o1))] / 4, no gradient
    flowing through the targets, as in facebookresearch/deit, `engine.py --cosub`, which knows no
    other loss than the binary cross-entropy. Evaluation is that of `Classification`.

    A step costs what one of twice the batch does. Logs `label_loss` and `cosub_loss`, whose mean
    the loss is.

    Args:
      model: makes a model with stochastic depth above 0, see `Classification`.
      loss: `"sigmoid_mean"`, the mean of the binary cross-entropies over classes as in the
        reference, or `"sigmoid"`, their sum.
      label_smoothing: see `Classification`; DeiT III's recipes have none.
      mixing: see `Classification`.
      target_threshold: see `Classification`; DeiT III's recipes (`--bce-loss`): 0.0.
    """

    def __init__(
        self,
        model: Callable[[], keras.Model],
        loss: str = "sigmoid_mean",
        label_smoothing: float = 0.0,
        mixing: Mixing | None = None,
        target_threshold: float | None = None,
    ):
        super().__init__(model, loss, label_smoothing, mixing, target_threshold)
        if self._loss.exclusive:
            raise ValueError(
                "Cosub.loss must be 'sigmoid_mean' or 'sigmoid': submodels learn each other's "
                f"sigmoids; given {loss!r}"
            )

    def build_model(self) -> keras.Model:
        """Creates the model; see `Task.build_model`."""
        model = super().build_model()
        depths = [layer for layer in _layers(model) if isinstance(layer, StochasticDepth)]
        if not any(layer.rate > 0 for layer in depths):
            raise ValueError(
                "Cosub needs stochastic depth, without which both submodels are the same; set "
                f"create_model.stochastic_depth above 0 ({type(model).__name__} has none)"
            )
        return model

    def train_values(self, model: keras.Model, batch: Batch) -> Values:
        """Losses of both submodels against labels and each other; see `Task.train_values`."""
        images = batch["image"]
        heads = self._heads(model, tf.concat([images, images], axis=0))
        outputs = [tf.split(logits, 2) for logits in heads]  # of each head two [batch, classes]
        targets, labels = self._training_targets(batch, heads[0].shape[-1])
        label_loss = tf.reduce_mean(
            [self._loss.values(targets, o) for pair in outputs for o in pair], axis=0
        )
        cosub_loss = tf.reduce_mean(
            [
                self._loss.values(tf.stop_gradient(tf.sigmoid(other)), own)
                for first, second in outputs
                for own, other in ((first, second), (second, first))
            ],
            axis=0,
        )
        return {
            "loss": (label_loss + cosub_loss) / 2,
            "label_loss": label_loss,
            "cosub_loss": cosub_loss,
            "accuracy": self._accuracy(
                labels, tf.reduce_mean([o for pair in outputs for o in pair], axis=0)
            ),
        }


def _layers(layer: keras.Layer) -> Iterator[keras.Layer]:
    """A layer's own layers at any depth."""
    for inner in layer._layers:
        yield inner
        yield from _layers(inner)
