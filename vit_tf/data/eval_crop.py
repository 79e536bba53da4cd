"""Evaluation's resize and central crop as timm, torchvision and DeiT have it."""

import math
from collections.abc import Sequence

import tensorflow as tf

from vit_tf.data.op_registry import FeaturesFn, register_op
from vit_tf.data.ops import height_and_width, on_image, resizer

_MODES = ("center", "squash")


@register_op("crop_ratio")
def crop_ratio(
    size: int | Sequence[int],
    ratio: float = 0.875,
    method: str = "bicubic",
    antialias: bool = True,
    mode: str = "center",
) -> FeaturesFn:
    """Resizes so that a crop of `size` is the share `ratio` of the image, and cuts out the middle.

    `crop_ratio(224)` resizes the shorter side to 256 and cuts out 224 x 224 pixels: what timm,
    torchvision and DeiT evaluate on. Whole numbers are found as they do: the shorter side becomes
    floor(size / ratio), the fraction of the longer one is cut off, and half a pixel of the crop's
    place goes to the even number. big_vision's `resize_small(256)|central_crop(224)` rounds the
    longer side and cuts off the half pixel.

    Args:
      size: an int or (height, width) of the result.
      ratio: share of the resized image's side that the crop has, in (0, 1]; timm's `crop_pct`.
      method: as in `resize`; the default is that of Pillow's bicubic, together with `antialias`.
      antialias: as in `resize`.
      mode: timm's `crop_mode`. `"center"` keeps the aspect ratio; `"squash"` does not, so that
        nothing of the image is lost with ratio 1.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be in (0, 1], got {ratio}")
    if mode not in _MODES:
        raise ValueError(f"mode must be one of {', '.join(_MODES)}, got {mode!r}")
    sides = height_and_width(size)
    resize_to = resizer(method, antialias)
    larger = [math.floor(side / ratio) for side in sides]

    def crop(image: tf.Tensor) -> tf.Tensor:
        new_size = larger if mode == "squash" else _covering(tf.shape(image)[:2], larger)
        resized = resize_to(image, new_size)
        top, left = tf.unstack(_half(tf.shape(resized)[:2] - list(sides)))
        return tf.slice(resized, [top, left, 0], [*sides, image.shape[-1]])

    return on_image(crop)


def _covering(size: tf.Tensor, target: list[int]) -> tf.Tensor:
    """The least size, int32 `[2]`, of an image's shape that covers a target height and width."""
    height, width = tf.unstack(size)
    by_width, by_height = height * target[1] // width, width * target[0] // height
    return tf.maximum(tf.stack([by_width, by_height]), target)


def _half(space: tf.Tensor) -> tf.Tensor:
    """Half of it, int32; 1/2 is rounded to the even number, as Python's `round` does."""
    return tf.cast(tf.round(tf.cast(space, tf.float32) / 2), tf.int32)
