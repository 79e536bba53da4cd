"""Knowledge distillation of any student (Hinton et al., 2015; Beyer et al., 2022)."""

from collections.abc import Callable

import keras
import tensorflow as tf

from vit_tf.data import Mixing
from vit_tf.training.tasks.base import Batch, Values
from vit_tf.training.tasks.distillation import Distillation, check_temperature, kl_divergence
from vit_tf.training.tasks.losses import Loss
from vit_tf.training.teachers import CachedTeacher, Teacher


class KnowledgeDistillation(Distillation):
    """The student matches the teacher's probabilities on the images that both see.

    The default is function matching ("Knowledge distillation: A good teacher is patient and
    consistent", Beyer et al., 2022): no labels, KL(teacher || student) alone; with
    `Mixing(mixup_alpha=1.0)` the matching goes on between images. The loss is
    (1 - label_weight) * temperature^2 * KL + label_weight * label loss. Of a model with several
    heads each learns from the teacher, and the losses' mean counts.

    Logs `distillation_loss`, `label_loss`, `teacher_agreement` (the student's class is the
    teacher's) and `teacher_accuracy`.

    Args:
      model: makes the student, see `Classification`.
      teacher: see `Distillation`.
      temperature: that both models' logits are divided by before the softmax.
      label_weight: share of the labels' loss, from 0 up to, but not including, 1.
      loss: of the labels, see `Classification`.
      label_smoothing: see `Classification`.
      mixing: see `Classification`; the teacher sees the mixed images.
      target_threshold: see `Classification`.
    """

    def __init__(
        self,
        model: Callable[[], keras.Model],
        teacher: Teacher | CachedTeacher,
        temperature: float = 1.0,
        label_weight: float = 0.0,
        loss: Loss = "softmax",
        label_smoothing: float = 0.0,
        mixing: Mixing | None = None,
        target_threshold: float | None = None,
    ):
        super().__init__(model, teacher, loss, label_smoothing, mixing, target_threshold)
        check_temperature("KnowledgeDistillation.temperature", temperature)
        if not 0.0 <= label_weight < 1.0:
            raise ValueError(
                f"KnowledgeDistillation.label_weight must lie in [0, 1); given {label_weight}. "
                "Without a teacher the task is Classification"
            )
        self._temperature = temperature
        self._label_weight = label_weight

    def prepare(self, model: keras.Model, train_input: object) -> None:
        """Makes the teacher; see `Task.prepare`."""
        super().prepare(model, train_input)
        unknown = self._teacher.unknown_classes
        if unknown and not self._label_weight:
            raise ValueError(
                f"the teacher lacks {len(unknown)} of the student's classes (the first is "
                f"{unknown[0]}), which it would never learn without labels; set "
                "KnowledgeDistillation.label_weight above 0"
            )

    def train_values(self, model: keras.Model, batch: Batch) -> Values:
        """Losses, and what the teacher makes of it; see `Task.train_values`."""
        heads = self._heads(model, batch["image"])
        targets, labels = self._training_targets(batch, heads[0].shape[-1])
        teacher_logits = batch["teacher_logits"]
        label_loss = tf.reduce_mean(
            [self._loss.values(targets, logits) for logits in heads], axis=0
        )
        distillation_loss = tf.reduce_mean(
            [kl_divergence(teacher_logits, logits, self._temperature) for logits in heads],
            axis=0,
        )
        share = self._label_weight
        return {
            "loss": (1.0 - share) * distillation_loss + (share * label_loss if share else 0.0),
            "label_loss": label_loss,
            "distillation_loss": distillation_loss,
            "accuracy": self._accuracy(labels, tf.reduce_mean(heads, axis=0)),
            **self._measures(labels, tf.reduce_mean(heads, axis=0), teacher_logits),
        }
