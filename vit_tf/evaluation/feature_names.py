"""Names of features: which tensors of a model, how they become vectors, and what is concatenated.

    pre_logits                                a tensor of `model.intermediate_names`
    block03/out:gap                           tokens or a grid, averaged over the patches
    block03/out:token                         the class token
    block03/out:flat                          all values
    block10/out:token+block11/out:token       one vector after the other
    pixels                                    the preprocessed image's values

Without a suffix a tensor of more than two axes is pooled as the model itself pools: by its class
token if it has one, else by the average.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

import tensorflow as tf

from vit_tf.models.base import ImageModel
from vit_tf.models.features import check_intermediates

PIXELS = "pixels"
POOLINGS = ("gap", "token", "flat")


@dataclasses.dataclass(frozen=True)
class Part:
    """One tensor of a feature: its name, and how it is pooled (None: as the model pools)."""

    tensor: str
    pooling: str | None = None


@dataclasses.dataclass(frozen=True)
class TokenLayout:
    """What stands before the patches in a model's tokens.

    Attributes:
      class_tokens: how many tokens stand first that images are classified by.
      before_patches: those and the registers.
      holds_tokens: whether they stand in a tensor of this name.
    """

    class_tokens: int = 0
    before_patches: int = 0
    holds_tokens: Callable[[str], bool] = lambda tensor: False

    @classmethod
    def of(cls, model: ImageModel) -> "TokenLayout":
        """The layout of a model of this package."""
        prefix = getattr(model, "num_prefix_tokens", 0)
        registers = getattr(model, "num_registers", 0)
        return cls(prefix, prefix + registers, model.holds_prefix_tokens)


def parts_of(name: str) -> list[Part]:
    """The parts that a feature's name asks for.

    Raises:
      ValueError: for a pooling that there is not, and for an empty part.
    """
    parts = []
    for text in name.split("+"):
        tensor, colon, pooling = text.strip().partition(":")
        if not tensor or (colon and pooling not in POOLINGS):
            what = f"ends in {pooling!r}" if tensor else "has an empty part"
            raise ValueError(
                f"the feature {name!r} {what}; a part is a tensor's name and, after a colon, "
                f"{', '.join(POOLINGS)} or nothing, such as 'block03/out:gap'; parts are joined by "
                "'+'"
            )
        parts.append(Part(tensor, pooling or None))
    return parts


def tensors_of(names: Iterable[str]) -> list[str]:
    """The tensors that features are made of, each once; the images themselves are none."""
    tensors = [part.tensor for name in names for part in parts_of(name)]
    return [tensor for tensor in dict.fromkeys(tensors) if tensor != PIXELS]


def check_features(names: Sequence[str], available: Sequence[str], layout: TokenLayout) -> None:
    """Raises ValueError for what a model cannot give, as far as names tell.

    Args:
      names: of features.
      available: of the model's tensors.
      layout: of its tokens.
    """
    if not names:
        raise ValueError("no features are asked for; name some, such as 'pre_logits'")
    check_intermediates(tensors_of(names), available)
    for name in names:
        for part in parts_of(name):
            if part.pooling == "token" and not _has_class_token(part.tensor, layout):
                raise ValueError(
                    f"the feature {name!r} asks for the class token of {part.tensor!r}, which has "
                    f"none; take '{part.tensor}:gap'"
                )


def make_feature(
    name: str, images: tf.Tensor, tensors: Mapping[str, tf.Tensor], layout: TokenLayout
) -> tf.Tensor:
    """A feature's vectors.

    Args:
      name: of the feature.
      images: [batch, height, width, channels], preprocessed.
      tensors: by name, those of `tensors_of`.
      layout: of the model's tokens.

    Returns:
      float32 [batch, width].

    Raises:
      ValueError: for a tensor that cannot be pooled as asked.
    """
    vectors = []
    for part in parts_of(name):
        if part.tensor == PIXELS:
            vectors.append(_flat(tf.cast(images, tf.float32)))
        else:
            vectors.append(_pooled(name, part, tensors[part.tensor], layout))
    return vectors[0] if len(vectors) == 1 else tf.concat(vectors, axis=-1)


def _pooled(name: str, part: Part, tensor: tf.Tensor, layout: TokenLayout) -> tf.Tensor:
    # Averages of half types are taken in float32.
    tensor = tf.cast(tensor, tf.float32)
    rank = tensor.shape.rank
    attention = part.tensor.endswith("attn_weights")
    if part.pooling == "flat" or (rank == 2 and part.pooling is None):
        return _flat(tensor)
    if rank not in (3, 4) or attention:
        raise ValueError(
            f"the feature {name!r}: {part.tensor!r} of the shape {tensor.shape} cannot be pooled "
            f"by {part.pooling or 'the model'!r}; take "
            + (f"'{part.tensor}:flat'" if attention or rank != 2 else repr(part.tensor))
        )
    if rank == 4:
        return tf.reduce_mean(tensor, axis=[1, 2])
    has_token = _has_class_token(part.tensor, layout)
    if part.pooling == "token" or (part.pooling is None and has_token):
        return tensor[:, 0]
    first_patch = layout.before_patches if layout.holds_tokens(part.tensor) else 0
    return tf.reduce_mean(tensor[:, first_patch:], axis=1)


def _flat(tensor: tf.Tensor) -> tf.Tensor:
    width = tensor.shape[1:].num_elements()
    return tf.reshape(tensor, [-1, width])


def _has_class_token(tensor: str, layout: TokenLayout) -> bool:
    return layout.class_tokens > 0 and layout.holds_tokens(tensor)
