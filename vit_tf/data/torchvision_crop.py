"""The random crop of torchvision and timm, with which DeiT and its followers were trained."""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from vit_tf.data.op_registry import FeaturesFn, draw, register_op
from vit_tf.data.ops import height_and_width, on_image_and_seed, resizer

_TRIES = 10


@register_op("random_resized_crop", random=True)
def random_resized_crop(
    size: int | Sequence[int],
    area_min: float = 8,
    area_max: float = 100,
    aspect_min: float = 3 / 4,
    aspect_max: float = 4 / 3,
    method: str = "bicubic",
    antialias: bool = True,
) -> FeaturesFn:
    """Cuts out a random part and resizes it to `size`, drawn as torchvision's RandomResizedCrop.

    Unlike `inception_crop` (TensorFlow's sampler), the area is uniform and so is the logarithm of
    the aspect. Ten parts are drawn and the first that fits is taken; if none does, the largest
    central part of an allowed aspect.

    Args:
      size: an int or (height, width).
      area_min: least share of the image's area, in percent.
      area_max: greatest share of the image's area, in percent.
      aspect_min: least width / height of the part.
      aspect_max: greatest width / height of the part.
      method: as in `resize`; the default is Pillow's bicubic, together with `antialias`.
      antialias: as in `resize`.
    """
    size = height_and_width(size)
    resize_to = resizer(method, antialias)
    sample = _part_sampler(area_min, area_max, aspect_min, aspect_max)

    def crop(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        top, left, height, width = tf.unstack(sample(tf.shape(image)[:2], seed))
        return resize_to(image[top : top + height, left : left + width], size)

    return on_image_and_seed(crop)


def _part_sampler(
    area_min: float, area_max: float, aspect_min: float, aspect_max: float
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """A function `(height and width, seed)` that draws a part: top, left, height, width."""
    if not 0 < area_min <= area_max <= 100 or not 0 < aspect_min <= aspect_max:
        raise ValueError("need 0 < area_min <= area_max <= 100 and 0 < aspect_min <= aspect_max")
    log_min, log_max = math.log(aspect_min), math.log(aspect_max)

    def sample(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        sides = tf.cast(shape, tf.float32)  # [height, width]
        draws = draw([2 * _TRIES + 2], seed)
        area, log_aspect = tf.unstack(tf.reshape(draws[2:], [2, _TRIES]))
        area = (area_min + (area_max - area_min) * area) / 100 * tf.reduce_prod(sides)
        root = tf.exp((log_min + (log_max - log_min) * log_aspect) / 2)  # of the aspect
        tries = tf.round(tf.sqrt(area) * tf.stack([1 / root, root]))  # [2, tries]
        fits = tf.reduce_all((tries > 0) & (tries <= sides[:, None]), axis=0)
        drawn = tf.gather(tries, tf.argmax(fits), axis=1)
        is_drawn = tf.reduce_any(fits)
        part = tf.where(is_drawn, drawn, _largest(sides, aspect_min, aspect_max))
        space = sides - part
        # A share just below 1 of a large space may be rounded up to one place too many.
        place = tf.minimum(tf.floor(draws[:2] * (space + 1)), space)
        corner = tf.where(is_drawn, place, tf.floor(space / 2))
        return tf.cast(tf.concat([corner, part], axis=0), tf.int32)

    return sample


def _largest(sides: tf.Tensor, aspect_min: float, aspect_max: float) -> tf.Tensor:
    """Height and width of the largest part of an allowed aspect."""
    height, width = tf.unstack(sides)
    return tf.stack(
        [
            tf.minimum(height, tf.round(width / aspect_min)),
            tf.minimum(width, tf.round(height * aspect_max)),
        ]
    )
