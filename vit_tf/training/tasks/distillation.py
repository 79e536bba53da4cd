"""What tasks with a teacher share: its answers in the batch, and what is measured of them."""

from collections.abc import Callable

import keras
import tensorflow as tf

from vit_tf.data import Mixing
from vit_tf.evaluation import classification as evaluation
from vit_tf.training.tasks.base import Batch, Values
from vit_tf.training.tasks.classification import Classification
from vit_tf.training.tasks.losses import Loss
from vit_tf.training.teachers import CachedTeacher, Teacher


class Distillation(Classification):
    """Classification with a teacher, which answers for the images that the student is shown.

    Args:
      model: as for `Classification`.
      teacher: a `Teacher`, or a `CachedTeacher` where augmentation does not change.
      loss: of the labels, as for `Classification`.
      label_smoothing: as for `Classification`; the teacher's answers are not smoothed.
      mixing: as for `Classification`; the teacher sees the mixed images.
      target_threshold: as for `Classification`.

    Raises:
      ValueError: for an argument that does not fit, such as mixing with a cached teacher.
    """

    def __init__(
        self,
        model: Callable[[], keras.Model],
        teacher: Teacher | CachedTeacher,
        loss: Loss = "softmax",
        label_smoothing: float = 0.0,
        mixing: Mixing | None = None,
        target_threshold: float | None = None,
    ):
        super().__init__(model, loss, label_smoothing, mixing, target_threshold)
        if mixing is not None and not teacher.sees_mixed_images:
            raise ValueError(
                f"{type(self).__name__}.mixing changes the images in every step, so cached answers "
                f"are not for them; leave out Mixing, or use a Teacher ({mixing})"
            )
        self._teacher = teacher

    def prepare(self, model: keras.Model, train_input: object) -> None:
        """Makes the teacher; see `Task.prepare`."""
        self._teacher.prepare(model, train_input)

    def augment(self, model: keras.Model, batch: Batch, key: tf.Tensor) -> Batch:
        """Mixes, then adds what the teacher says; see `Task.augment`."""
        batch = super().augment(model, batch, key)
        return {**batch, **self.teacher_answers(model, batch)}

    def teacher_answers(self, model: keras.Model, batch: Batch) -> Batch:
        """What is learned from the teacher besides labels: `"teacher_logits"` [batch, classes]."""
        return {"teacher_logits": self._teacher(batch)}

    def facts(self) -> dict[str, str]:
        """Mixing, and which teacher with which weights; see `Task.facts`."""
        return {**super().facts(), "teacher": self._teacher.facts()}

    def identity(self) -> dict[str, str]:
        """The hash of the teacher's weights, which no checkpoint holds; see `Task.identity`."""
        return {"teacher": self._teacher.fingerprint}

    @staticmethod
    def _measures(labels: tf.Tensor, logits: tf.Tensor, teacher_logits: tf.Tensor) -> Values:
        """How often the student says what the teacher says, and how often that is right."""
        answers = tf.argmax(teacher_logits, axis=-1)
        agreement = tf.cast(tf.argmax(logits, axis=-1) == answers, tf.float32)
        return {
            "teacher_agreement": agreement,
            "teacher_accuracy": evaluation.in_top_k(labels, teacher_logits, 1),
        }


def kl_divergence(teacher_logits: tf.Tensor, logits: tf.Tensor, temperature: float) -> tf.Tensor:
    """KL(teacher || student) of softened probabilities, times the squared temperature.

    The factor keeps the size of the gradients (Hinton et al., 2015, section 2).

    Args:
      teacher_logits: [batch, classes].
      logits: [batch, classes].
      temperature: that both are divided by.

    Returns:
      float32 [batch], summed over classes.
    """
    teacher_log = tf.nn.log_softmax(teacher_logits / temperature)
    student_log = tf.nn.log_softmax(logits / temperature)
    divergence = tf.reduce_sum(tf.exp(teacher_log) * (teacher_log - student_log), axis=-1)
    return divergence * temperature**2


def check_temperature(name: str, temperature: float) -> None:
    """Raises ValueError unless a temperature is above 0; `name` says of what it is."""
    if not temperature > 0.0:
        raise ValueError(f"{name} must be above 0; given {temperature}")
