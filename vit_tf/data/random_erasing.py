"""Random erasing (Zhong et al. 2017) as timm has it (`timm/data/random_erasing.py`)."""

import math

import tensorflow as tf

from vit_tf.data.image_ops import fill_box
from vit_tf.data.op_registry import FeaturesFn, draw, register_op
from vit_tf.data.ops import on_image_and_seed

_ATTEMPTS = 10
_MODES = ("pixel", "rand", "const")


@register_op("random_erasing", random=True)
def random_erasing(
    probability: float = 0.25,
    mode: str = "pixel",
    area_min: float = 2,
    area_max: float = 100 / 3,
    aspect_min: float = 0.3,
) -> FeaturesFn:
    """Replaces a box by noise. It belongs after `standardize`: the noise has mean 0 and variance 1.

    The box's area is drawn uniformly, its height / width log-uniformly in [aspect_min,
    1 / aspect_min], then its place uniformly. The first of 10 draws that is smaller than the image
    is taken; if none is, the image stays.

    Args:
      probability: of erasing at all.
      mode: `"pixel"`: normal noise; `"rand"`: one normal colour; `"const"`: zeros.
      area_min: least area, in percent of the image.
      area_max: greatest area, in percent of the image.
      aspect_min: least height / width.
    """
    if mode not in _MODES:
        raise ValueError(f"mode must be one of {_MODES}, got {mode!r}")
    if not 0 <= probability <= 1:
        raise ValueError(f"probability must be in [0, 1], got {probability}")
    if not 0 < area_min <= area_max <= 100 or not 0 < aspect_min <= 1:
        raise ValueError("need 0 < area_min <= area_max <= 100 and 0 < aspect_min <= 1")

    def erase(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        if not image.dtype.is_floating:
            raise ValueError("random_erasing works on a float image: put it after standardize")
        size = tf.shape(image)[:2]
        chance, *place = tf.unstack(draw([3], seed))
        box, found = _box_size(size, _fold(seed, 1), (area_min / 100, area_max / 100), aspect_min)
        start = tf.cast(tf.stack(place) * tf.cast(size - box + 1, tf.float32), tf.int32)

        def erased() -> tf.Tensor:
            noise = _noise(mode, box, image, _fold(seed, 2))
            return fill_box(image, start, box, noise)

        applied = tf.logical_and(chance < probability, found)
        return tf.ensure_shape(tf.cond(applied, erased, lambda: tf.identity(image)), image.shape)

    return on_image_and_seed(erase)


def _box_size(
    size: tf.Tensor, seed: tf.Tensor, area: tuple[float, float], aspect_min: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width, int32 `[2]`, of the first box that fits, and whether there is one."""
    draws = draw([2, _ATTEMPTS], seed)
    log_aspect = math.log(aspect_min) * (1 - 2 * draws[0])
    pixels = tf.cast(tf.reduce_prod(size), tf.float32) * (area[0] + (area[1] - area[0]) * draws[1])
    scale = tf.exp(0.5 * tf.stack([log_aspect, -log_aspect], axis=1))
    boxes = tf.cast(tf.round(tf.sqrt(pixels)[:, None] * scale), tf.int32)  # [attempts, 2]
    fits = tf.reduce_all(boxes < size, axis=1)
    first = tf.argmax(tf.cast(fits, tf.int32))
    return tf.minimum(boxes[first], size), fits[first]


def _noise(mode: str, box: tf.Tensor, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    shape = tf.concat([box, tf.shape(image)[2:]], axis=0)
    if mode == "pixel":
        return tf.random.stateless_normal(shape, seed, dtype=image.dtype)
    colour = tf.random.stateless_normal(shape[2:], seed, dtype=image.dtype)
    return tf.broadcast_to(colour if mode == "rand" else tf.zeros_like(colour), shape)


def _fold(seed: tf.Tensor, number: int) -> tf.Tensor:
    return tf.random.experimental.stateless_fold_in(seed, number)
