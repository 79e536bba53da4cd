"""Colour augmentation without a policy: colour jitter, and DeiT-III's 3-Augment."""

from collections.abc import Callable

import tensorflow as tf

from vit_tf.data import image_ops
from vit_tf.data.image_ops import on_rgb_and_seed
from vit_tf.data.op_registry import FeaturesFn, draw, register_op

_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
_BLUR_RADII = (0.1, 2.0)


@register_op("color_jitter", random=True)
def color_jitter(
    brightness: float = 0.4, contrast: float | None = None, saturation: float | None = None
) -> FeaturesFn:
    """Changes brightness, contrast and saturation in random order (torchvision's `ColorJitter`).

    Each is blended by a factor drawn uniformly from [max(0, 1 - strength), 1 + strength], as
    Pillow's `ImageEnhance` does. The image stays uint8.

    Args:
      brightness: strength; 0 is none.
      contrast: strength; by default that of brightness.
      saturation: strength; by default that of brightness.
    """
    strengths = _strengths(brightness, contrast, saturation)
    return on_rgb_and_seed("color_jitter", lambda image, seed: _jitter(image, seed, strengths))


@register_op("three_augment", random=True)
def three_augment(jitter: float = 0.3) -> FeaturesFn:
    """3-Augment of DeiT-III (Touvron et al. 2022, section 3.2), after its crop and flip.

    One of grey, solarizing at 128, and Gaussian blur of radius 0.1 to 2, with equal chance; then
    `color_jitter(jitter)`.

    Args:
      jitter: strength of the colour jitter; 0 is none.
    """
    strengths = _strengths(jitter, jitter, jitter)

    def augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        choice, place = tf.unstack(draw([2], seed))
        low, high = _BLUR_RADII
        branches = [
            lambda: image_ops.grayscale(image),
            lambda: image_ops.solarize(image),
            lambda: image_ops.gaussian_blur(image, low + (high - low) * place),
        ]
        chosen = tf.switch_case(tf.cast(choice * len(branches), tf.int32), branches)
        chosen = tf.ensure_shape(chosen, image.shape)
        if not jitter:
            return chosen
        return _jitter(chosen, tf.random.experimental.stateless_fold_in(seed, 1), strengths)

    return on_rgb_and_seed("three_augment", augment)


def _strengths(brightness: float, contrast: float | None, saturation: float | None) -> list[float]:
    strengths = [brightness if s is None else s for s in (brightness, contrast, saturation)]
    if min(strengths) < 0:
        raise ValueError("the strength of colour jitter must not be negative")
    return strengths


def _jitter(image: tf.Tensor, seed: tf.Tensor, strengths: list[float]) -> tf.Tensor:
    order, *draws = tf.unstack(draw([4], seed))
    order = tf.gather(_ORDERS, tf.cast(order * len(_ORDERS), tf.int32))

    def factor(kind: int) -> tf.Tensor:
        low, high = max(0.0, 1 - strengths[kind]), 1 + strengths[kind]
        return low + (high - low) * draws[kind]

    def branches(image: tf.Tensor) -> list[Callable[[], tf.Tensor]]:
        return [
            lambda: image_ops.brightness(image, factor(0)),
            lambda: image_ops.contrast(image, factor(1), image_ops.mean_grey(image)),
            lambda: image_ops.color(image, factor(2)),
        ]

    for place in range(3):
        image = tf.ensure_shape(tf.switch_case(order[place], branches(image)), image.shape)
    return image
