"""How pixel values are scaled, so that a batch made for one model can be shown to another."""

import ast
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vit_tf.data.preprocess import Preprocess
from vit_tf.models.preprocessing import Preprocessing

_SCALING_OPS = ("value_range", "standardize")


@dataclasses.dataclass(frozen=True)
class Scaling:
    """A linear scaling of pixel values, the same for all images.

    Args:
      black: what byte 0 becomes, for each channel or one for all.
      white: what byte 255 becomes.
    """

    black: tuple[float, ...]
    white: tuple[float, ...]

    @classmethod
    def of_facts(cls, facts: Preprocessing) -> "Scaling":
        """The one that a model's card asks for."""
        if facts.mean is None:
            low, high = facts.value_range
            return cls((low,), (high,))
        pairs = list(zip(facts.mean, facts.std, strict=True))
        return cls(
            tuple((0.0 - mean) / std for mean, std in pairs),
            tuple((1.0 - mean) / std for mean, std in pairs),
        )

    @classmethod
    def of_preprocess(cls, preprocess: Preprocess) -> "Scaling":
        """The one that an input's preprocessing ends with; bytes as they are if with none."""
        channels = preprocess.image_shape[-1]
        text = next(filter(_is_scaling, reversed(_op_texts(str(preprocess)))), None)
        if text is None:
            return BYTES
        ends = np.repeat(np.uint8([[[0], [255]]]), channels, axis=-1)  # [1, 2, channels]
        scaled = Preprocess(f"decode({channels})|{text}").image_from_pixels(ends).numpy()
        return cls(*(tuple(map(float, values)) for values in scaled[0]))

    def convert(self, images: tf.Tensor, to: "Scaling") -> tf.Tensor:
        """Images [..., channels] scaled this way, rescaled another way; float32."""
        images = tf.cast(images, tf.float32)
        if self == to:
            return images
        black, white, to_black, to_white = (
            np.asarray(ends) for ends in (self.black, self.white, to.black, to.white)
        )
        factor = (to_white - to_black) / (white - black)
        return images * tf.constant(factor, tf.float32) + tf.constant(
            to_black - black * factor, tf.float32
        )


BYTES = Scaling((0.0,), (255.0,))


def scaling_of(train_input: Any, facts: Preprocessing | None) -> Scaling:
    """How a training input scales its images.

    Args:
      train_input: a `vit_tf.data.Input`, whose preprocessing tells, or a function that returns
        batches, which are then as the model's card has it.
      facts: the model's card, if it has one.

    Raises:
      ValueError: if neither tells.
    """
    preprocess = getattr(train_input, "preprocess", None)
    if preprocess is not None:
        return Scaling.of_preprocess(preprocess)
    if facts is None:
        raise ValueError(
            "nothing tells how the training images are scaled, which a teacher has to undo: train "
            "a model of create_model, whose card does, or from a vit_tf.data.Input"
        )
    return Scaling.of_facts(facts)


def _op_texts(ops: str) -> Sequence[str]:
    """The ops of a preprocessing string, each as it is written."""
    node, texts = ast.parse(ops, mode="eval").body, []
    while isinstance(node, ast.BinOp):
        texts.append(ast.unparse(node.right))
        node = node.left
    return [ast.unparse(node), *reversed(texts)]


def _is_scaling(text: str) -> bool:
    return text.partition("(")[0] in _SCALING_OPS
