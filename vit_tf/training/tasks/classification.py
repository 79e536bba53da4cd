"""Supervised classification with one label an image, or several."""

from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from vit_tf.analysis.prediction_sheet import plot_predictions
from vit_tf.data import Mixing
from vit_tf.evaluation import classification as evaluation
from vit_tf.training.tasks.base import Batch, Task, Values
from vit_tf.training.tasks.losses import Loss, logit_loss


class Classification(Task):
    """Cross-entropy against one label an image, or several.

    Labels are class numbers or float targets [batch, classes], such as the multi-hot ones of a
    multi-label source; the softmax loss divides targets by their sum. A prediction is right if it
    is one of the classes with the largest target: with multi-hot targets `accuracy` is ReaL
    accuracy (Beyer et al., 2020) and `top5_accuracy` the share of examples that have a label among
    their five largest logits. As in big_vision, evaluation leaves images without any label (all
    targets 0) out of all means; in training they add nothing to a softmax loss, are examples of no
    class to a sigmoid one, and never right.

    A model of several heads, which training mode returns as a tuple of logits, learns the label
    with each of them; its training loss is the mean of theirs, its accuracy that of the mean of
    the logits, which is also what such a model answers outside of training.

    Args:
      model: a function without arguments that makes the model; in gin `@create_model`, with
        `create_model.name = "vit_b16"` and whatever else the model takes.
      loss: `"softmax"` cross-entropy; `"sigmoid"`, the sum of binary cross-entropies over classes
        with which AugReg pre-trains (Steiner et al., 2022); `"sigmoid_mean"`, their mean, with
        which DeiT III does (Touvron et al., 2022); or a Keras loss of logits, see
        `losses.logit_loss`, in gin `@CategoricalFocalCrossentropy()`.
      label_smoothing: share s of the label mass spread evenly over all C classes: targets are
        1 - s + s/C and s/C (the same in Keras and timm). Mixing mixes smoothed targets; nothing
        is smoothed twice.
      mixing: mixes training batches; in gin `@Mixing()`. The training accuracy is then that of
        the classes with the largest mixed target. Evaluation is not touched.
      target_threshold: with a sigmoid loss, training targets above it count as 1 and others as 0.
        DeiT III: 0.0, so that both classes of a mixed image are wholly its own; timm's ResNet
        recipes (Wightman et al., 2021): 0.2. Default: targets stay soft.
    """

    metric = "accuracy"

    def __init__(
        self,
        model: Callable[[], keras.Model],
        loss: Loss = "softmax",
        label_smoothing: float = 0.0,
        mixing: Mixing | None = None,
        target_threshold: float | None = None,
    ):
        self._loss = logit_loss(loss)
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label_smoothing must lie in [0, 1); given {label_smoothing}")
        if target_threshold is not None:
            if self._loss.exclusive:
                raise ValueError(
                    "target_threshold is for loss 'sigmoid' or 'sigmoid_mean'; given "
                    f"{loss!r}, whose targets must sum to one"
                )
            if not 0.0 <= target_threshold < 1.0:
                raise ValueError(f"target_threshold must lie in [0, 1); given {target_threshold}")
        self._make_model = model
        self._label_smoothing = label_smoothing
        self._mixing = mixing
        self._target_threshold = target_threshold

    def build_model(self) -> keras.Model:
        """Creates the model; see `Task.build_model`."""
        model = self._make_model()
        if not model.num_classes:
            raise ValueError(
                f"{type(self).__name__} needs a model with a head; set create_model.num_classes to "
                "the number of classes (it is 0)"
            )
        floor = self._label_smoothing / model.num_classes
        if self._target_threshold is not None and floor > self._target_threshold:
            raise ValueError(
                f"label_smoothing {self._label_smoothing} over {model.num_classes} classes lifts "
                f"every target above target_threshold {self._target_threshold}, to 1; set "
                f"{type(self).__name__}.label_smoothing = 0"
            )
        return model

    def facts(self) -> dict[str, str]:
        """Which mixing is on; see `Task.facts`."""
        return {"mixing": str(self._mixing)} if self._mixing else {}

    def check_input(self, model: keras.Model, train_or_eval_input: object) -> None:
        """Raises ValueError if the data's classes or images do not fit the model."""
        classes = getattr(train_or_eval_input, "num_classes", None)
        if classes is not None and classes > model.num_classes:
            raise ValueError(
                f"the data has {classes} classes and the model's head {model.num_classes}; set "
                f"create_model.num_classes = {classes}"
            )
        given = getattr(train_or_eval_input, "image_shape", None)
        facts = getattr(model, "preprocessing", None)
        if given and facts and given != (*facts.image_size, facts.channels):
            raise ValueError(
                f"the input's images are {_by(given)} after "
                f"{str(train_or_eval_input.preprocess)!r} and the model takes "
                f"{_by((*facts.image_size, facts.channels))}; change Input.preprocess or "
                "create_model.image_size"
            )

    def figure(self, rows: Sequence[Mapping], class_names: Sequence[str]) -> Figure:
        """Images with predicted and true classes; see `Task.figure`."""
        columns = {
            name: np.stack([row[name] for row in rows])
            for name in ("image", "label", "probabilities")
        }
        return plot_predictions(*columns.values(), class_names)

    def augment(self, model: keras.Model, batch: Batch, key: tf.Tensor) -> Batch:
        """Mixes images, and into `"targets"` [batch, classes] the labels; see `Task.augment`."""
        if self._mixing is None:
            return batch
        targets = self._smoothed(batch["label"], model.num_classes)
        images, targets = self._mixing(batch["image"], targets, batch["mask"], key)
        return {**batch, "image": images, "targets": targets}

    def train_values(self, model: keras.Model, batch: Batch) -> Values:
        """Loss and accuracy of each training example; see `Task.train_values`."""
        heads = self._heads(model, batch["image"])
        targets, labels = self._training_targets(batch, heads[0].shape[-1])
        losses = [self._loss.values(targets, logits) for logits in heads]
        return {
            "loss": tf.reduce_mean(losses, axis=0),
            "accuracy": self._accuracy(labels, tf.reduce_mean(heads, axis=0)),
        }

    def eval_values(self, model: keras.Model, batch: Batch) -> Values:
        """Loss (without smoothing) and top-k hits of each example; see `Task.eval_values`."""
        logits = tf.cast(model(batch["image"], training=False), tf.float32)
        targets = self._targets(batch["label"], logits.shape[-1])
        labels = evaluation.labels_of(targets)
        values = {
            "loss": self._loss.values(targets, logits),
            "accuracy": evaluation.in_top_k(labels, logits, 1),
        }
        if model.num_classes > 5:
            values["top5_accuracy"] = evaluation.in_top_k(labels, logits, 5)
        return values

    def labelled(self, batch: Batch) -> tf.Tensor:
        """Which examples have a label; see `Task.labelled`."""
        labels = batch["label"]
        if labels.shape.rank == 1:
            return tf.ones_like(labels, tf.float32)
        return tf.cast(tf.reduce_max(labels, axis=-1) > 0, tf.float32)

    def predict_values(self, model: keras.Model, images: tf.Tensor) -> Values:
        """Logits and probabilities, both [batch, classes]; see `Task.predict_values`."""
        logits = tf.cast(model(images, training=False), tf.float32)
        return {"logits": logits, "probabilities": self._loss.probabilities(logits)}

    def _heads(self, model: keras.Model, images: tf.Tensor) -> list[tf.Tensor]:
        """What each head says in training mode, float32 [batch, classes]."""
        outputs = model(images, training=True)
        heads = outputs if isinstance(outputs, tuple) else (outputs,)
        return [tf.cast(logits, tf.float32) for logits in heads]

    def _training_targets(self, batch: Batch, classes: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Targets of a training batch, and which classes count as right, both [batch, classes]."""
        targets = batch.get("targets")
        if targets is None:
            targets = self._smoothed(batch["label"], classes)
        labels = evaluation.labels_of(targets)
        if self._target_threshold is not None:
            targets = tf.cast(targets > self._target_threshold, tf.float32)
        return targets, labels

    def _accuracy(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        return evaluation.in_top_k(labels, logits, 1)

    def _smoothed(self, labels: tf.Tensor, classes: int) -> tf.Tensor:
        """Training targets of unmixed images, [batch, classes]."""
        targets, smoothing = self._targets(labels, classes), self._label_smoothing
        labelled = tf.cast(tf.reduce_max(targets, axis=-1, keepdims=True) > 0, tf.float32)
        return targets * (1.0 - smoothing) + labelled * (smoothing / classes)

    def _targets(self, labels: tf.Tensor, classes: int) -> tf.Tensor:
        """Targets as the loss takes them, [batch, classes]; zeros where there is no label."""
        targets = evaluation.dense_targets(labels, classes)
        if self._loss.exclusive:
            total = tf.reduce_sum(targets, axis=-1, keepdims=True)
            return tf.math.divide_no_nan(targets, total)
        return targets


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
