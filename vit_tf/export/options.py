"""What can be chosen when a model is exported."""

import dataclasses

from vit_tf.export.attention import ATTENTION
from vit_tf.suggestions import did_you_mean

PRECISIONS = ("float32", "bfloat16")
WEIGHTS = ("averages", "raw")


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """What a SavedModel is to hold.

    Args:
      precision: what the served graph computes in, `"float32"` or `"bfloat16"`. Default: what the
        model computes in. See `in_precision` for how weights are stored.
      fold_batch_norms: folds batch norms into the dense layers and convolutions beside them, see
        `models.fold_batch_norms`; outputs are those of the evaluated model but for rounding.
      weights: which ones of a training checkpoint: `"averages"` (of `RunConfig.ema`) or `"raw"`.
        Default: those that the run evaluates.
      top_k: how many classes an answer names; no more than there are.
      attention: adds the signature `attention`, with `"rollout"`, `"maps"` or both.
      image_sizes: further input sizes in pixels, a side or (height, width), each served as
        `classify_<size>` with the same weights.
      serving: the name under which TensorFlow Serving is to serve it, whose files are then written
        beside; see `vit_tf.export.serving_files`. Default: none are.
      evaluate: measures the SavedModel's accuracy on the whole evaluation split, for the card.

    Raises:
      ValueError: if one is not of these.
    """

    precision: str | None = None
    fold_batch_norms: bool = True
    weights: str | None = None
    top_k: int = 5
    attention: tuple[str, ...] = ()
    image_sizes: tuple[int | tuple[int, int], ...] = ()
    serving: str | None = None
    evaluate: bool = False

    def __post_init__(self):
        _check("precision", self.precision, PRECISIONS)
        _check("weights", self.weights, WEIGHTS)
        for name in self.attention:
            _check("attention", name, ATTENTION)
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")


def _check(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is None or value in allowed:
        return
    hint = did_you_mean(value, allowed)
    raise ValueError(f"{name} must be one of {', '.join(allowed)}; given {value!r}.{hint}")
