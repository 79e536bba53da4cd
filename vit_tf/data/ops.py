"""Image preprocessing ops: decoding, resizing, cropping, flipping and value ranges.

Geometry follows big_vision's `pp/ops_image.py` unless an op says otherwise. Ops that resample keep
the image's dtype: an uint8 image is clipped and rounded (as PIL and timm do; big_vision truncates).
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from vit_tf.data.decode import MAX_PIXELS, check_decoding, decode_image
from vit_tf.data.op_registry import BatchFn, Features, FeaturesFn, draw, register_op, require

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_PADDING_MODES = {"zeros": "CONSTANT", "reflect": "REFLECT"}  # ours -> tf.pad's
# Methods of resizing without negative weights: nothing to clip.
_AVERAGING = ("area", "bilinear", "gaussian", "nearest")
# Methods that TensorFlow runs faster on floats than on bytes, to the same bits, and how many values
# an image may have per pixel of the result so that this makes up for the conversion.
_FASTER_ON_FLOATS = ("bicubic", "bilinear")
_WORTH_CONVERTING = 24


@register_op("decode")
def decode(
    channels: int = 3,
    exif: bool = False,
    accurate_dct: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> FeaturesFn:
    """Decodes JPEG, PNG, WebP, BMP or the first frame of a GIF into uint8 `[h, w, channels]`.

    Truncated, unknown and too large images are errors; see `decode_image` for colour modes. Images
    that are pixels already stay as they are.

    Args:
      channels: 1, 3 or 4.
      exif: turn JPEGs upright by their EXIF orientation. The references (big_vision, timm,
        torchvision, official.vision) train and evaluate without, hence the default.
      accurate_dct: decode JPEGs to the bit as Pillow does, hence as timm and DeiT saw them; the
        default is TensorFlow's (big_vision), a few grey levels off.
      max_pixels: most pixels that a header may claim.
    """
    check_decoding(channels, max_pixels)

    def decode_features(features: Features) -> Features:
        if features["image"].dtype != tf.string:
            return features
        image = decode_image(
            features["image"], channels, exif, accurate_dct, max_pixels, features.get("filename")
        )
        return {**features, "image": image}

    return decode_features


@register_op("resize")
def resize(
    height: int | Sequence[int],
    width: int | None = None,
    method: str = "bilinear",
    antialias: bool = False,
) -> FeaturesFn:
    """Resizes to `[height, width]` (square by default), ignoring the aspect ratio."""
    size = height_and_width(height if width is None else (height, width))
    return on_image(resizer(method, antialias, size))


@register_op("resize_small")
def resize_small(
    size: int | Sequence[int], method: str = "area", antialias: bool = False
) -> FeaturesFn:
    """Resizes to the smallest image that covers `size`, keeping the aspect ratio.

    Args:
      size: an int, which the shorter side becomes, or (height, width), of which one is met and the
        other exceeded: what is then cut to that size loses least.
      method: as in `resize`.
      antialias: as in `resize`.
    """
    least = tf.constant(height_and_width(size), tf.float32)
    resize_to = resizer(method, antialias)

    def resize_image(image: tf.Tensor) -> tf.Tensor:
        height_width = tf.cast(tf.shape(image)[:2], tf.float32)
        scale = tf.reduce_max(least / height_width)
        return resize_to(image, tf.cast(tf.round(height_width * scale), tf.int32))

    return on_image(resize_image)


@register_op("central_crop")
def central_crop(size: int | Sequence[int]) -> FeaturesFn:
    """Cuts `size` (an int or (height, width)) out of the middle; a smaller image is an error."""
    height, width = height_and_width(size)

    def crop(image: tf.Tensor) -> tf.Tensor:
        space = _space(image, (height, width), f"central_crop({size})")
        top, left = tf.unstack(space // 2)
        return tf.slice(image, [top, left, 0], [height, width, image.shape[-1]])

    return on_image(crop)


@register_op("random_crop", random=True)
def random_crop(
    size: int | Sequence[int], padding: int = 0, padding_mode: str = "zeros"
) -> FeaturesFn:
    """Cuts `size` out at a uniformly random place, after padding each side.

    Args:
      size: an int or (height, width).
      padding: pixels added on each side.
      padding_mode: `"zeros"`, or `"reflect"`: the image mirrored at its outermost pixels, with
        which the simple random crop of DeiT III pads.
    """
    height, width = height_and_width(size)
    if padding < 0:
        raise ValueError("padding must not be negative")
    if padding_mode not in _PADDING_MODES:
        raise ValueError(f"padding_mode must be {' or '.join(_PADDING_MODES)}")
    mode = _PADDING_MODES[padding_mode]

    def crop(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        image = tf.pad(image, [[padding, padding], [padding, padding], [0, 0]], mode)
        space = _space(image, (height, width), f"random_crop({size}, padding={padding})")
        corner = draw([2], seed) * tf.cast(space + 1, tf.float32)
        top, left = tf.unstack(tf.cast(corner, tf.int32))
        return tf.slice(image, [top, left, 0], [height, width, image.shape[-1]])

    return on_image_and_seed(crop)


@register_op("inception_crop", random=True)
def inception_crop(
    size: int | Sequence[int],
    area_min: float = 5,
    area_max: float = 100,
    aspect_min: float = 3 / 4,
    aspect_max: float = 4 / 3,
    method: str = "bilinear",
    antialias: bool = False,
) -> FeaturesFn:
    """Cuts out a random part of the image and resizes it to `size` (Szegedy et al. 2014).

    Args:
      size: an int or (height, width).
      area_min: least share of the image's area, in percent.
      area_max: greatest share of the image's area, in percent.
      aspect_min: least width / height of the part.
      aspect_max: greatest width / height of the part.
      method: as in `resize`.
      antialias: as in `resize`.
    """
    size = height_and_width(size)
    resize_to = resizer(method, antialias)
    sample = part_sampler(area_min, area_max, aspect_min, aspect_max)

    def crop(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        top, left, height, width = tf.unstack(sample(tf.shape(image), seed))
        return resize_to(image[top : top + height, left : left + width], size)

    return on_image_and_seed(crop)


@register_op("flip_lr", random=True)
def flip_lr() -> FeaturesFn:
    """Mirrors the image left to right with probability 1/2."""

    def flip(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        is_flipped = draw([], seed) < 0.5
        return tf.cond(is_flipped, lambda: tf.reverse(image, [1]), lambda: image)

    return on_image_and_seed(flip)


def _value_range_of_batch(low: float = -1.0, high: float = 1.0) -> BatchFn:
    def in_one_pass(images: tf.Tensor) -> tf.Tensor:
        # Not for single images, which models are served: converters do not know this op.
        pixels = tf.bitcast(images, tf.quint8)
        return tf.quantization.dequantize(pixels, float(low), float(high), mode="MIN_COMBINED")

    in_three_passes = _linear(low, high)
    if low >= high:
        return in_three_passes
    with tf.init_scope():
        levels = tf.constant(range(256), tf.uint8)
        is_same = tf.reduce_all(in_one_pass(levels) == in_three_passes(levels))
        return in_one_pass if is_same else in_three_passes


@register_op("value_range", batched=_value_range_of_batch)
def value_range(low: float = -1.0, high: float = 1.0) -> FeaturesFn:
    """Maps [0, 255] linearly to [low, high], float32."""
    if low == high:
        raise ValueError(f"low and high must differ, got {low} twice")
    return on_image(_linear(low, high))


def _linear(low: float, high: float) -> Callable[[tf.Tensor], tf.Tensor]:
    scale = (float(high) - float(low)) / 255.0
    return lambda image: tf.cast(image, tf.float32) * scale + float(low)


@register_op("standardize")
def standardize(
    mean: float | Sequence[float] = IMAGENET_MEAN, std: float | Sequence[float] = IMAGENET_STD
) -> FeaturesFn:
    """Maps [0, 255] to [0, 1], then subtracts `mean` and divides by `std` per channel (DeiT)."""
    for name, value in (("mean", mean), ("std", std)):
        if not isinstance(value, int | float) and len(value) not in (1, 3):
            raise ValueError(f"{name} must be one number or three, got {value!r}")
    if not np.all(np.asarray(std) > 0):
        raise ValueError(f"std must be above 0, got {std!r}")
    mean, std = tf.nest.map_structure(float, (mean, std))

    def normalize(image: tf.Tensor) -> tf.Tensor:
        # TensorFlow's graph optimizer turns a division by a constant into a multiplication, which
        # rounds otherwise, and so a served graph would differ from tf.data's; not this division.
        divide = tf.math.divide_no_nan
        scaled = divide(tf.cast(image, tf.float32), 255.0)
        return divide(scaled - tf.constant(mean), tf.constant(std))

    return on_image(normalize)


def on_image(function: Callable[[tf.Tensor], tf.Tensor]) -> FeaturesFn:
    """Makes an op out of a function of the image alone."""
    return lambda features: {**features, "image": function(features["image"])}


def on_image_and_seed(function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> FeaturesFn:
    """Makes an op out of a function `(image, seed)`; `seed` is int64 `[2]`, for stateless draws."""
    return lambda features: {**features, "image": function(features["image"], features["seed"])}


def height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    """A size as (height, width); `ValueError` unless it is an int or two, all positive."""
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"size must be a positive int or (height, width), got {size!r}")
    return sides


def resizer(
    method: str, antialias: bool, size: tuple[int, int] | None = None
) -> Callable[..., tf.Tensor]:
    """A function `(image, size)` that resizes as `resize` says."""
    methods = sorted(value for key, value in vars(tf.image.ResizeMethod).items() if key.isupper())
    if method not in methods:
        raise ValueError(f"method must be one of {', '.join(methods)}, got {method!r}")
    stays_in_range = method in _AVERAGING

    def plain(image: tf.Tensor, size: tf.Tensor | Sequence[int]) -> tf.Tensor:
        return tf.image.resize(image, size, method=method, antialias=antialias)

    def of_bytes(image: tf.Tensor, size: tf.Tensor | Sequence[int]) -> tf.Tensor:
        if antialias or method not in _FASTER_ON_FLOATS:
            return tf.cast(plain(image, size), tf.float32)
        return tf.cond(
            tf.size(image) <= tf.reduce_prod(size) * _WORTH_CONVERTING,
            lambda: plain(tf.cast(image, tf.float32), size),
            lambda: tf.cast(plain(image, size), tf.float32),
        )

    def resize_to(image: tf.Tensor, size=size) -> tf.Tensor:
        if not image.dtype.is_integer:
            return plain(image, size)
        rounded = tf.round(of_bytes(image, size))
        return (tf.cast if stays_in_range else tf.saturate_cast)(rounded, image.dtype)

    return resize_to


def part_sampler(
    area_min: float, area_max: float, aspect_min: float, aspect_max: float
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """A function `(image shape, seed)` that draws a part: top, left, height, width."""
    if not 0 < area_min <= area_max <= 100 or not 0 < aspect_min <= aspect_max:
        raise ValueError("need 0 < area_min <= area_max <= 100 and 0 < aspect_min <= aspect_max")

    def sample(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            shape,
            bounding_boxes=tf.zeros([0, 0, 4]),
            seed=seed,
            min_object_covered=0.0,
            aspect_ratio_range=(aspect_min, aspect_max),
            area_range=(area_min / 100, area_max / 100),
            use_image_if_no_bounding_boxes=True,
        )
        return tf.concat([begin[:2], size[:2]], axis=0)

    return sample


def _space(image: tf.Tensor, size: tuple[int, int], op: str) -> tf.Tensor:
    """How much higher and wider than `size` an image is; an error if it is smaller."""
    space = tf.shape(image)[:2] - list(size)
    message = f"{op}: the image is smaller than {size[0]}x{size[1]}; resize it first"
    return space * require(tf.reduce_all(space >= 0), message)
