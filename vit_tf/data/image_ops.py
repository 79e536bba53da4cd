"""Image functions that the augmentations are made of: uint8 `[h, w, 3]` in, the same out.

They follow Pillow's `ImageOps` and `ImageEnhance`, which timm calls and big_vision's
`pp/archive/autoaugment.py` imitates; where those two differ, an argument chooses. Scalars may be
numbers or tensors. Pixels are handled as `[h, w * 3]` and chosen by arithmetic: TensorFlow's
select, and broadcasting along an axis of length 3, are several times slower on a CPU.
"""

from collections.abc import Callable

import tensorflow as tf

from vit_tf.data.op_registry import FeaturesFn
from vit_tf.data.ops import on_image_and_seed

# Weights of red, green and blue, and what is added before cutting off the fraction.
PILLOW_GREY = ((19595 / 65536, 38470 / 65536, 7471 / 65536), 0.5)
# tf.image.rgb_to_grayscale's weights, and its way back to uint8: [0, 1] times 255.5, cut off.
TENSORFLOW_GREY = (tuple(weight * 255.5 / 255 for weight in (0.2989, 0.587, 0.114)), 0.0)

Scalar = tf.Tensor | float


def on_rgb_and_seed(op: str, function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]) -> FeaturesFn:
    """Makes an op out of a function `(image, seed)` for uint8 images with three channels.

    The result raises `ValueError`, naming the op, for any other image.
    """

    def checked(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        if image.dtype != tf.uint8 or image.shape[-1] != 3:
            raise ValueError(
                f"{op} works on uint8 images with 3 channels, got {image.dtype.name} with "
                f"{image.shape[-1]}: put it before value_range or standardize, and decode(3)"
            )
        return function(image, seed)

    return on_image_and_seed(checked)


def invert(image: tf.Tensor) -> tf.Tensor:
    """255 minus the pixel."""
    return 255 - image


def posterize(image: tf.Tensor, bits: Scalar) -> tf.Tensor:
    """Keeps the highest `bits` (0 to 8) bits of each pixel."""
    kept = tf.bitwise.right_shift(tf.constant(0xFF00), tf.cast(bits, tf.int32))
    return tf.bitwise.bitwise_and(image, tf.cast(tf.bitwise.bitwise_and(kept, 255), tf.uint8))


def solarize(image: tf.Tensor, threshold: Scalar = 128) -> tf.Tensor:
    """Inverts the pixels that are at least `threshold` (0 to 256)."""
    bright = tf.cast(image, tf.float32) >= tf.cast(threshold, tf.float32)
    return tf.bitwise.bitwise_xor(image, tf.cast(bright, tf.uint8) * 255)


def solarize_add(image: tf.Tensor, addition: Scalar) -> tf.Tensor:
    """Adds `addition` (not negative) to the pixels below 128, up to 255."""
    pixels = tf.cast(image, tf.float32)
    dark = tf.cast(pixels < 128, tf.float32)
    return tf.cast(tf.minimum(pixels + dark * tf.cast(addition, tf.float32), 255), tf.uint8)


def brightness(image: tf.Tensor, factor: Scalar) -> tf.Tensor:
    """Blends from black (factor 0) over the image (1) to brighter."""
    return _to_uint8(tf.cast(image, tf.float32) * factor)


def contrast(image: tf.Tensor, factor: Scalar, grey: tf.Tensor) -> tf.Tensor:
    """Blends from the constant `grey` level (factor 0) over the image (1) to more contrast.

    Pillow's level is `mean_grey`; the RandAugment of big_vision has `pixel_count_grey`.
    """
    return _blend(grey, tf.cast(image, tf.float32), factor)


def mean_grey(image: tf.Tensor) -> tf.Tensor:
    """The image's mean grey level, rounded (`PIL.ImageEnhance.Contrast`)."""
    weights, bias = PILLOW_GREY
    pixels = tf.reshape(tf.cast(image, tf.float32), [-1, 3])
    grey = tf.floor(tf.linalg.matvec(pixels, tf.constant(weights)) + bias)
    return tf.floor(tf.reduce_mean(grey) + 0.5)


def pixel_count_grey(image: tf.Tensor) -> tf.Tensor:
    """The number of pixels / 256, at most 255: 196 at 224 x 224 pixels.

    What big_vision's published recipes blend towards: a mean over the histogram's 256 counts.
    """
    count = tf.cast(tf.reduce_prod(tf.shape(image)[:2]), tf.float32)
    return tf.minimum(tf.floor(count / 256), 255)


def color(image: tf.Tensor, factor: Scalar, grey_kind: tuple = PILLOW_GREY) -> tf.Tensor:
    """Blends from grey (factor 0) over the image (1) to more saturated."""
    return _blend(_grey(image, grey_kind), tf.cast(image, tf.float32), factor)


def grayscale(image: tf.Tensor, grey_kind: tuple = PILLOW_GREY) -> tf.Tensor:
    """The image in grey, still with three channels."""
    return tf.cast(_grey(image, grey_kind), tf.uint8)


def sharpness(image: tf.Tensor, factor: Scalar, rounded: bool = True) -> tf.Tensor:
    """Blends from a smoothed image (factor 0) over the image (1) to a sharpened one.

    Pillow rounds the smoothed image, big_vision cuts it off (`rounded=False`). The outermost
    pixels stay as they are.
    """
    rows = _rows(image)
    pixels = tf.cast(rows, tf.int16)
    columns = pixels[:-2] + pixels[1:-1] + pixels[2:]
    centre = pixels[1:-1, 3:-3]
    weighted_sum = columns[:, :-6] + columns[:, 3:-3] + columns[:, 6:] + 4 * centre
    # A half instead of 0: the quotients lie on thirteenths, so that rounding errors cannot matter.
    smooth = tf.floor((tf.cast(weighted_sum, tf.float32) + (6.5 if rounded else 0.5)) / 13)
    inner = _blend(smooth, tf.cast(centre, tf.float32), factor)
    # [1:] before the last ones: an image of one row or column has no first *and* last.
    middle = rows[1:-1]
    middle = tf.concat([middle[:, :3], inner, middle[:, 3:][:, -3:]], axis=1)
    return _like(tf.concat([rows[:1], middle, rows[1:][-1:]], axis=0), image)


def autocontrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to the range 0 to 255."""
    rows = tf.cast(_rows(image), tf.float32)
    # Over the rows first: there TensorFlow takes several values at a time.
    low = tf.reduce_min(tf.reshape(tf.reduce_min(rows, axis=0), [-1, 3]), axis=0)
    high = tf.reduce_max(tf.reshape(tf.reduce_max(rows, axis=0), [-1, 3]), axis=0)
    flat = tf.cast(high <= low, tf.float32)  # 1 for a channel with one value only: it stays
    low, span = low * (1 - flat), high - low + flat * 255
    width = tf.shape(image)[1:2]
    # The quotients lie on multiples of 1 / span: 0.001 * 255 / span is too little to reach the
    # next one, but more than rounding errors take away.
    above = rows - tf.tile(low - 0.001, width)
    return _like(tf.cast(above * tf.tile(255 / span, width), tf.uint8), image)


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Makes the histogram of each channel as even as a table from old to new values can."""
    offsets = tf.tile(tf.constant([0, 256, 512]), tf.shape(image)[1:2])
    at = tf.cast(_rows(image), tf.int32) + offsets  # place in the tables of the three channels
    counts = tf.reshape(tf.histogram_fixed_width(at, [0, 767], nbins=768), [3, 256])
    values = tf.range(256)
    highest = tf.reduce_max(values * tf.cast(counts > 0, tf.int32), axis=1)  # [3]
    of_highest = tf.gather(counts, highest, axis=1, batch_dims=1)
    step = ((tf.reduce_sum(counts, axis=1) - of_highest) // 255)[:, None]
    before = tf.cumsum(counts, axis=1, exclusive=True)
    table = tf.minimum((before + step // 2) // tf.maximum(step, 1), 255)
    table = tf.reshape(tf.where(step > 0, table, values), [-1])  # [3 * 256]
    # gather_nd, since tf.gather is slower for single elements.
    return _like(tf.gather_nd(tf.cast(table, tf.uint8), at[..., None]), image)


def cutout(image: tf.Tensor, half_size: Scalar, center: tf.Tensor, fill: int = 128) -> tf.Tensor:
    """Paints a square of `2 * half_size` pixels, less what lies outside (DeVries & Taylor 2017).

    Args:
      image: uint8 `[h, w, 3]`.
      half_size: in pixels.
      center: row and column, int32 `[2]`.
      fill: grey level of the square.
    """
    half_size = tf.cast(half_size, tf.int32)
    size = tf.shape(image)[:2]
    start = tf.clip_by_value(center - half_size, 0, size)
    end = tf.clip_by_value(center + half_size, 0, size)
    (top, left), (bottom, right) = tf.unstack(start), tf.unstack(end)
    rows = _rows(image)
    square = tf.fill([bottom - top, (right - left) * 3], tf.cast(fill, tf.uint8))
    across = rows[top:bottom]
    across = tf.concat([across[:, : left * 3], square, across[:, right * 3 :]], axis=1)
    return _like(tf.concat([rows[:top], across, rows[bottom:]], axis=0), image)


def fill_box(image: tf.Tensor, start: tf.Tensor, size: tf.Tensor, content: tf.Tensor) -> tf.Tensor:
    """Replaces the box at row and column `start`, of `size`, by `content` `[*size, channels]`."""
    space = tf.shape(image)[:2] - start - size
    padding = [[start[0], space[0]], [start[1], space[1]], [0, 0]]
    inside = tf.pad(tf.ones_like(content), padding)
    return tf.ensure_shape(image * (1 - inside) + tf.pad(content, padding), image.shape)


def gaussian_blur(image: tf.Tensor, radius: Scalar) -> tf.Tensor:
    """Blurs by a Gaussian of standard deviation `radius`, at most 2.6 pixels.

    Like `PIL.ImageFilter.GaussianBlur`: three passes of a box filter whose outermost weights are
    fractions, so that its variance is right (Gwosdek et al. 2011, "Theoretical foundations of
    Gaussian convolution by extended box filtering").
    """
    variance = tf.square(tf.cast(radius, tf.float32)) / 3  # of each pass
    whole = tf.floor((tf.sqrt(12 * variance + 1) - 1) / 2)
    fraction = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    fraction /= 6 * (variance - tf.square(whole + 1))
    reach = whole + fraction
    weights = tf.clip_by_value(reach + 1 - tf.range(3.0), 0, 1) / (2 * reach + 1)
    pixels = tf.cast(image, tf.float32)
    for _ in range(3):
        pixels = _box_pass(_box_pass(pixels, weights, axis=0), weights, axis=1)
    return tf.ensure_shape(tf.cast(pixels + 0.5, tf.uint8), image.shape)


def _box_pass(pixels: tf.Tensor, weights: tf.Tensor, axis: int) -> tf.Tensor:
    """Weighted sum of five neighbours; `weights` `[3]`, from the centre; the edge is repeated."""
    size = tf.shape(pixels)[axis]
    first, last = tf.split(tf.gather(pixels, [0, size - 1], axis=axis), 2, axis=axis)
    padded = tf.concat([first, first, pixels, last, last], axis=axis)

    def shifted(by: int) -> tf.Tensor:
        return padded[by : by + size] if axis == 0 else padded[:, by : by + size]

    one, two = shifted(1) + shifted(3), shifted(0) + shifted(4)
    return pixels * weights[0] + one * weights[1] + two * weights[2]


def _grey(image: tf.Tensor, grey_kind: tuple) -> tf.Tensor:
    """Grey levels, whole numbers as float32, in each of the three channels."""
    weights, bias = grey_kind
    pixels = tf.reshape(tf.cast(image, tf.float32), [-1, 3])
    grey = tf.matmul(pixels, tf.repeat(tf.constant(weights)[:, None], 3, axis=1))
    return tf.reshape(tf.floor(grey + bias if bias else grey), tf.shape(image))


def _blend(start: tf.Tensor, image: tf.Tensor, factor: Scalar) -> tf.Tensor:
    return _to_uint8(start + factor * (image - start))


def _to_uint8(pixels: tf.Tensor) -> tf.Tensor:
    """Clips and cuts off the fraction, as Pillow and big_vision do when they blend."""
    return tf.cast(tf.clip_by_value(pixels, 0, 255), tf.uint8)


def _rows(image: tf.Tensor) -> tf.Tensor:
    return tf.reshape(image, [tf.shape(image)[0], -1])


def _like(rows: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.reshape(rows, tf.shape(image)), image.shape)
