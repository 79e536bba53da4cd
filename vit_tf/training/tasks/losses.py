"""Losses of logits against soft targets: the field's by name, or a Keras loss."""

import dataclasses
import inspect
from collections.abc import Callable

import keras
import tensorflow as tf

Loss = str | keras.losses.Loss | Callable[[tf.Tensor, tf.Tensor], tf.Tensor]

# Keras' losses of classes that do not exclude each other.
_BINARY = (keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy)


@dataclasses.dataclass(frozen=True)
class LogitLoss:
    """A loss, example by example.

    Attributes:
      values: of targets and logits, both float32 [batch, classes]; returns float32 [batch].
      exclusive: whether classes exclude each other, so that targets must sum to one and
        probabilities are a softmax; else each class has a sigmoid of its own.
    """

    values: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    exclusive: bool

    @property
    def probabilities(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """What makes probabilities of logits."""
        return tf.nn.softmax if self.exclusive else tf.nn.sigmoid


def logit_loss(loss: Loss) -> LogitLoss:
    """The loss that a name or a Keras loss stands for.

    Args:
      loss: `"softmax"`, `"sigmoid"` (summed over classes), `"sigmoid_mean"`; or a Keras loss of
        logits, or a function as Keras takes one, of targets and logits. Classes exclude each
        other, unless it is a `BinaryCrossentropy` or `BinaryFocalCrossentropy` or inherits from
        one. Its reduction is not used: the loop takes the mean.

    Raises:
      ValueError: for an unknown name, and a Keras loss that expects probabilities.
      TypeError: for something else, such as the class of a loss.
    """
    if isinstance(loss, str):
        if loss not in _NAMED:
            raise ValueError(
                f"loss must be one of {', '.join(_NAMED)}, or a Keras loss; given {loss!r}"
            )
        return _NAMED[loss]
    if inspect.isclass(loss) or not callable(loss):
        hint = f"; in gin @{loss.__name__}(), with brackets" if inspect.isclass(loss) else ""
        raise TypeError(f"loss must be a name, a Keras loss or a function; given {loss!r}{hint}")
    if getattr(loss, "from_logits", True) is False:
        name = type(loss).__name__
        raise ValueError(f"{name} gets logits here; set {name}.from_logits = True")
    function = loss.call if isinstance(loss, keras.losses.Loss) else loss

    def values(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        losses = tf.cast(function(targets, logits), tf.float32)
        if losses.shape.rank != 1:
            raise ValueError(
                f"a loss must return one value an example, [batch]; {loss!r} returned "
                f"{losses.shape}"
            )
        return losses

    return LogitLoss(values, exclusive=not isinstance(loss, _BINARY))


def _softmax(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)


def _sigmoid(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=-1)


def _sigmoid_mean(targets: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits), axis=-1)


_NAMED = {
    "softmax": LogitLoss(_softmax, exclusive=True),
    "sigmoid": LogitLoss(_sigmoid, exclusive=False),
    "sigmoid_mean": LogitLoss(_sigmoid_mean, exclusive=False),
}
