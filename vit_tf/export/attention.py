"""The attention that a SavedModel serves when it is asked for: all layers' maps, their rollout."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from vit_tf.analysis.attention_maps import lacks_attention, self_attention
from vit_tf.suggestions import did_you_mean

ATTENTION = ("rollout", "maps")


def check_attention(model: keras.Model, kinds: Sequence[str]) -> None:
    """Raises ValueError for an unknown kind of attention, and for a model that has none.

    Args:
      model: whose attention is wanted.
      kinds: out of `ATTENTION`.
    """
    for kind in kinds:
        if kind not in ATTENTION:
            raise ValueError(
                f"attention {kind!r} is unknown; there are {' and '.join(map(repr, ATTENTION))}."
                + did_you_mean(kind, ATTENTION)
            )
    why = lacks_attention(model)
    if kinds and why:
        name = getattr(model, "variant", None) or type(model).__name__
        raise ValueError(
            f"the model {name} {why}, so {' and '.join(kinds)} cannot be served; export it without "
            "attention"
        )


def attention(
    model: keras.Model, images: tf.Tensor, kinds: Sequence[str] = ATTENTION
) -> dict[str, tf.Tensor]:
    """Attention of a model of this package that has attention.

    Args:
      model: the model.
      images: [batch, height, width, channels], preprocessed.
      kinds: what to give, out of `ATTENTION`.

    Returns:
      `"rollout"`: float32 [batch, rows, columns] of patches, see `rollout_map`; `"maps"`: float32
      [batch, layers, heads, queries, keys].
    """
    found = self_attention(model, images)
    outputs = {}
    if "rollout" in kinds:
        outputs["rollout"] = found.rollout()
    if "maps" in kinds:
        outputs["maps"] = tf.stack(found.layers, axis=1)
    return outputs
