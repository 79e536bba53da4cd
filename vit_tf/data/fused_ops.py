"""Decoding and cropping in one: of a JPEG only the part that is kept is decoded."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from vit_tf.data.decode import decode_image, if_jpeg
from vit_tf.data.op_registry import Features, FeaturesFn, register_op
from vit_tf.data.ops import height_and_width, part_sampler, resizer


@register_op("decode_jpeg_and_inception_crop", random=True)
def decode_jpeg_and_inception_crop(
    size: int | Sequence[int],
    area_min: float = 5,
    area_max: float = 100,
    aspect_min: float = 3 / 4,
    aspect_max: float = 4 / 3,
    method: str = "bilinear",
    antialias: bool = False,
) -> FeaturesFn:
    """`decode|inception_crop(...)` that decodes only the part of a JPEG that is kept: faster.

    Pixels at the part's border may differ a little from a full decode. A truncated file is noticed
    only where the part reaches into what is missing; `decode` always notices. Other formats are
    decoded in full. The arguments are those of `inception_crop`.
    """
    size = height_and_width(size)
    resize_to = resizer(method, antialias)
    sample = part_sampler(area_min, area_max, aspect_min, aspect_max)

    def crop(features: Features) -> Features:
        part = _decode_part(features, lambda shape: sample(shape, features["seed"]))
        return {**features, "image": resize_to(part, size)}

    return crop


@register_op("decode_jpeg_and_central_crop")
def decode_jpeg_and_central_crop(
    size: int | Sequence[int],
    ratio: float = 0.875,
    method: str = "bilinear",
    antialias: bool = False,
) -> FeaturesFn:
    """Decodes the middle of the image and resizes it to `size`: a fast evaluation.

    The part is the largest one of the result's aspect ratio, times `ratio` along each side, as in
    the evaluation of `official.vision` (`center_crop_image_v2`) and of the TPU ResNets before it.
    `crop_ratio` and `resize_small(256)|central_crop(224)` show the same part to within a pixel, but
    resize before they cut, which costs more.

    Args:
      size: an int or (height, width).
      ratio: share of the image's shorter side that the part has, in (0, 1].
      method: as in `resize`.
      antialias: as in `resize`.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be in (0, 1], got {ratio}")
    size = height_and_width(size)
    resize_to = resizer(method, antialias)
    sides = tf.constant(size, tf.float32) * ratio

    def middle(shape: tf.Tensor) -> tf.Tensor:
        whole = tf.cast(shape[:2], tf.float32)
        # A little more than exact, so that 0.875 * 256 pixels are 224 and not 223.
        part = tf.cast(
            sides * tf.reduce_min(whole / tf.constant(size, tf.float32)) + 1e-3, tf.int32
        )
        part = tf.maximum(part, 1)
        return tf.concat([(shape[:2] - part) // 2, part], axis=0)

    return lambda features: {
        **features,
        "image": resize_to(_decode_part(features, middle), size),
    }


def _decode_part(features: Features, part_of: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """A part of an image: top, left, height and width as `part_of` finds them for its shape."""
    encoded = features["image"]
    if encoded.dtype != tf.string:
        return _cut(encoded, part_of)

    def jpeg() -> tf.Tensor:
        part = part_of(tf.io.extract_jpeg_shape(encoded))
        return tf.image.decode_and_crop_jpeg(encoded, part, channels=3)

    def other(encoded: tf.Tensor) -> tf.Tensor:
        return _cut(decode_image(encoded, filename=features.get("filename")), part_of)

    return tf.ensure_shape(if_jpeg(encoded, jpeg, other), [None, None, 3])


def _cut(image: tf.Tensor, part_of: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    top, left, height, width = tf.unstack(part_of(tf.shape(image)))
    return image[top : top + height, left : left + width]
