"""DeiT's distillation through a token of its own (Touvron et al., 2020, section 4)."""

from collections.abc import Callable

import keras
import tensorflow as tf

from vit_tf.data import Mixing
from vit_tf.training.tasks.base import Batch, Values
from vit_tf.training.tasks.distillation import Distillation, check_temperature, kl_divergence
from vit_tf.training.tasks.losses import Loss
from vit_tf.training.teachers import CachedTeacher, Teacher

KINDS = ("hard", "soft")


class TokenDistillation(Distillation):
    """The class head learns the label, the distillation head what a teacher says.

    The loss is (1 - alpha) * label loss + alpha * distillation loss, as in DeiT's `losses.py`.
    Evaluation, prediction and serving use the mean of both heads' logits.

    Logs `label_loss`, `distillation_loss`, `teacher_agreement` (the distillation head's class is
    the teacher's) and `teacher_accuracy`.

    Args:
      model: makes a model with a distillation head, such as `deit_s16_distilled` or `levit_256`,
        or one of the families `deit_distilled` and `levit`.
      teacher: see `Distillation`.
      kind: `"hard"`: cross-entropy with the class that the teacher prefers; `"soft"`: the KL
        divergence at `temperature`, times its square and divided by the number of classes, as the
        reference does.
      alpha: share of the distillation loss.
      temperature: tau of `"soft"`.
      loss: of the class head, see `Classification`.
      label_smoothing: of the class head's targets.
      mixing: see `Classification`; the teacher sees the mixed images.
      target_threshold: see `Classification`.
    """

    def __init__(
        self,
        model: Callable[[], keras.Model],
        teacher: Teacher | CachedTeacher,
        kind: str = "hard",
        alpha: float = 0.5,
        temperature: float = 1.0,
        loss: Loss = "softmax",
        label_smoothing: float = 0.0,
        mixing: Mixing | None = None,
        target_threshold: float | None = None,
    ):
        super().__init__(model, teacher, loss, label_smoothing, mixing, target_threshold)
        if kind not in KINDS:
            raise ValueError(
                f"TokenDistillation.kind must be {' or '.join(map(repr, KINDS))}; given {kind!r}"
            )
        if not 0.0 <= alpha <= 1.0:
            raise ValueError(f"TokenDistillation.alpha must lie in [0, 1]; given {alpha}")
        check_temperature("TokenDistillation.temperature", temperature)
        self._kind = kind
        self._alpha = alpha
        self._temperature = temperature

    def build_model(self) -> keras.Model:
        """Creates the model; see `Task.build_model`."""
        model = super().build_model()
        if "head_dist" not in getattr(model, "heads", {}):
            name = getattr(model, "variant", None) or type(model).__name__
            raise ValueError(
                f"TokenDistillation needs a model with a distillation head, such as "
                f"'deit_s16_distilled' or the family 'deit_distilled'; given {name}. "
                "KnowledgeDistillation takes any model"
            )
        return model

    def train_values(self, model: keras.Model, batch: Batch) -> Values:
        """Both heads' losses and what the teacher makes of it; see `Task.train_values`."""
        logits, logits_dist = self._heads(model, batch["image"])
        targets, labels = self._training_targets(batch, logits.shape[-1])
        teacher_logits = batch["teacher_logits"]
        label_loss = self._loss.values(targets, logits)
        distillation_loss = self._distillation_loss(teacher_logits, logits_dist)
        mean = (logits + logits_dist) / 2
        return {
            "loss": (1.0 - self._alpha) * label_loss + self._alpha * distillation_loss,
            "label_loss": label_loss,
            "distillation_loss": distillation_loss,
            "accuracy": self._accuracy(labels, mean),
            **self._measures(labels, logits_dist, teacher_logits),
        }

    def _distillation_loss(self, teacher_logits: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        if self._kind == "hard":
            answers = tf.argmax(teacher_logits, axis=-1)
            return tf.nn.sparse_softmax_cross_entropy_with_logits(answers, logits)
        # The reference sums over the batch and divides by batch * classes.
        return kl_divergence(teacher_logits, logits, self._temperature) / logits.shape[-1]
