"""DynamicViT's objective: a classifier that learns which tokens it needs (Rao et al., 2021)."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from vit_tf.data import Mixing
from vit_tf.models.features import extract_features
from vit_tf.training.tasks.base import Batch, Values
from vit_tf.training.tasks.distillation import Distillation, kl_divergence
from vit_tf.training.tasks.losses import Loss
from vit_tf.training.teachers import Teacher

# What enters the head, before tokens are pooled.
_TOKENS = "encoded"


class TokenPruning(Distillation):
    """A `DynamicViT` learns labels, and from the same model that drops no tokens.

    The loss is label loss + ratio_weight * ratio loss + distillation_weight * (logit loss + token
    loss), as in raoyongming/DynamicViT, `losses.py`:

    * ratio loss: the squared difference between the share of an image's patches that is kept and
      the model's `keep_ratios`, mean over stages;
    * logit loss: KL(teacher || student);
    * token loss: the mean squared difference between the two models' tokens after the last
      LayerNorm, over the patches that are kept to the end in the whole batch.

    Evaluation, prediction and serving drop tokens for good, as many as `keep_ratios` say.

    Logs `label_loss`, `ratio_loss`, `logit_loss`, `token_loss`, `teacher_agreement`,
    `teacher_accuracy`, and for each stage `kept0`, ...: the share of patches that is kept.

    Args:
      model: makes the student, of the family `dynamic_vit`, best with the teacher's weights.
      teacher: a model of as many patches and the same width, such as `deit_s16`.
      ratio_weight: of the ratio loss; the paper's 2.0, for DeiT-B 5.0.
      distillation_weight: of the logit loss and of the token loss.
      loss: of the labels, see `Classification`.
      label_smoothing: see `Classification`.
      mixing: see `Classification`; the teacher sees the mixed images.
      target_threshold: see `Classification`.

    Raises:
      ValueError: for a weight below 0, a teacher that has no tokens to show, and a model that drops
        none.
    """

    def __init__(
        self,
        model: Callable[[], keras.Model],
        teacher: Teacher,
        ratio_weight: float = 2.0,
        distillation_weight: float = 0.5,
        loss: Loss = "softmax",
        label_smoothing: float = 0.0,
        mixing: Mixing | None = None,
        target_threshold: float | None = None,
    ):
        super().__init__(model, teacher, loss, label_smoothing, mixing, target_threshold)
        weights = {"ratio_weight": ratio_weight, "distillation_weight": distillation_weight}
        for name, weight in weights.items():
            if weight < 0.0:
                raise ValueError(f"TokenPruning.{name} must not be negative; given {weight}")
        if not hasattr(teacher, "with_features"):
            raise ValueError(
                "TokenPruning learns from the teacher's tokens, which a "
                f"{type(teacher).__name__} does not keep; give it a Teacher"
            )
        self._ratio_weight = ratio_weight
        self._distillation_weight = distillation_weight

    def build_model(self) -> keras.Model:
        """Creates the model; see `Task.build_model`."""
        model = super().build_model()
        if not getattr(model, "keep_ratios", ()):
            name = getattr(model, "variant", None) or type(model).__name__
            raise ValueError(
                f"TokenPruning needs a model that drops tokens, such as 'dynamic_vit_s16'; {name} "
                "drops none"
            )
        return model

    def teacher_answers(self, model: keras.Model, batch: Batch) -> Batch:
        """Adds `"teacher_tokens"` [batch, patches, width]; see `Distillation.teacher_answers`."""
        answers = self._teacher.with_features(batch, [_TOKENS])
        patches, tokens = model.grid_size[0] * model.grid_size[1], answers[_TOKENS]
        # Class tokens and registers stand in front of the patches.
        tokens = tf.cast(tokens[:, max(tokens.shape[1] - patches, 0) :], tf.float32)
        if tuple(tokens.shape[1:]) != (patches, model.width):
            raise ValueError(
                f"the teacher's tokens are {tokens.shape[1]} of width {tokens.shape[2]} and the "
                f"student's {patches} of width {model.width}; TokenPruning compares them one by one"
            )
        return {"teacher_logits": answers["logits"], "teacher_tokens": tokens}

    def train_values(self, model: keras.Model, batch: Batch) -> Values:
        """The four losses, and how much is kept; see `Task.train_values`."""
        policies = [f"predictor{stage}/policy" for stage in range(len(model.keep_ratios))]
        names = ["logits", _TOKENS, *policies]
        features = extract_features(model, batch["image"], names, training=True)
        features = {name: tf.cast(value, tf.float32) for name, value in features.items()}
        logits, tokens = features["logits"], features[_TOKENS][:, 1:]
        kept = [features[name] for name in policies]
        targets, labels = self._training_targets(batch, logits.shape[-1])
        teacher_logits = batch["teacher_logits"]
        label_loss = self._loss.values(targets, logits)
        ratio = ratio_loss(kept, model.keep_ratios)
        of_logits = kl_divergence(teacher_logits, logits, temperature=1.0)
        of_tokens = token_loss(tokens, batch["teacher_tokens"], kept[-1], batch["mask"])
        return {
            "loss": label_loss
            + self._ratio_weight * ratio
            + self._distillation_weight * (of_logits + of_tokens),
            "label_loss": label_loss,
            "ratio_loss": ratio,
            "logit_loss": of_logits,
            "token_loss": of_tokens,
            "accuracy": self._accuracy(labels, logits),
            **{f"kept{stage}": tf.reduce_mean(keep, -1) for stage, keep in enumerate(kept)},
            **self._measures(labels, logits, teacher_logits),
        }


def ratio_loss(kept: Sequence[tf.Tensor], keep_ratios: Sequence[float]) -> tf.Tensor:
    """How far the shares of kept patches are from those that are wanted, squared.

    Args:
      kept: for each stage float [batch, patches], 1 for patches that are kept.
      keep_ratios: the wanted shares.

    Returns:
      float32 [batch], the mean over stages.
    """
    shares = tf.stack([tf.reduce_mean(keep, axis=-1) for keep in kept], axis=-1)
    return tf.reduce_mean(tf.math.squared_difference(shares, keep_ratios), axis=-1)


def token_loss(
    tokens: tf.Tensor, teacher_tokens: tf.Tensor, keep: tf.Tensor, mask: tf.Tensor
) -> tf.Tensor:
    """Squared difference to the teacher's tokens, where they are kept.

    The mean of the result over examples is the mean over all kept tokens of the batch, so that an
    image counts by how many of its tokens are kept. No gradient flows through the choice.

    Args:
      tokens: float [batch, patches, width].
      teacher_tokens: the same of the teacher.
      keep: float [batch, patches], 1 for patches that are kept.
      mask: float [batch], 0 for examples that are none.

    Returns:
      float32 [batch]; 0 where nothing is kept.
    """
    kept = tf.cast(keep > 0.5, tf.float32)
    differences = tf.reduce_mean(tf.math.squared_difference(tokens, teacher_tokens), axis=-1)
    mask = tf.cast(mask, tf.float32)
    of_all = tf.math.divide_no_nan(tf.reduce_sum(kept * mask[:, None]), tf.reduce_sum(mask))
    return tf.math.divide_no_nan(tf.reduce_sum(differences * kept, axis=-1), of_all)
