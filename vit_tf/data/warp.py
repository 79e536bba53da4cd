"""Shears, translations and rotations of uint8 images by reading each pixel somewhere else."""

from collections.abc import Sequence

import tensorflow as tf

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


def affine_matrix(
    image: tf.Tensor,
    degrees: tf.Tensor,
    shear_x: tf.Tensor,
    shear_y: tf.Tensor,
    translate_x: tf.Tensor,
    translate_y: tf.Tensor,
    shear_origin: float = 0.0,
) -> tf.Tensor:
    """The matrix for `warp` of one of: rotation, shears, translations; the others are zero.

    Args:
      image: `[h, w, c]`.
      degrees: of the rotation about the image's centre, counterclockwise.
      shear_x: pixels to the left per pixel downwards.
      shear_y: pixels upwards per pixel to the right.
      translate_x: pixels to the left.
      translate_y: pixels upwards.
      shear_origin: the row and column that shears leave in place: 0, the centre of the first
        pixel, in big_vision; -1/2, its corner, in Pillow.

    Returns:
      float32 `[2, 3]`.
    """
    size = tf.cast(tf.shape(image)[:2], tf.float32) - 1
    center_y, center_x = tf.unstack(size / 2)
    radians = degrees * (3.141592653589793 / 180)
    cos, sin = tf.cos(radians), tf.sin(radians)
    x_offset = center_x - (cos * center_x - sin * center_y) + translate_x - shear_x * shear_origin
    y_offset = center_y - (sin * center_x + cos * center_y) + translate_y - shear_y * shear_origin
    return tf.stack([[cos, shear_x - sin, x_offset], [shear_y + sin, cos, y_offset]])


def warp(
    image: tf.Tensor,
    matrix: tf.Tensor,
    interpolation: str = "nearest",
    fill: int | Sequence[int] = 128,
    along: str = "xy",
) -> tf.Tensor:
    """Makes the pixel in column x and row y from the image at `matrix @ (x, y, 1)`.

    Bilinear and bicubic (a = -1) are those of `PIL.Image.transform`, the fraction cut off: a place
    outside the image gives `fill`, neighbours of one inside are taken from the nearest edge.

    Args:
      image: uint8 `[h, w, 3]`.
      matrix: float32 `[2, 3]`; column x has its centre at x.
      interpolation: `"nearest"`, `"bilinear"` or `"bicubic"`.
      fill: grey level or red, green, blue.
      along: `"x"` or `"y"` if the matrix keeps every pixel in its row or column, which is then
        not interpolated: faster.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    y = tf.range(tf.cast(height, tf.float32))[:, None]
    x = tf.range(tf.cast(width, tf.float32))
    if interpolation == "nearest":
        # One for the frame, a half for rounding: cutting off the fraction is enough then.
        return _nearest(image, *_places(matrix + tf.constant([0, 0, 1.5]), x, y), fill)
    x_in, y_in = _places(matrix, x, y)
    # The same for each of the three values of a pixel.
    x_wide, y_wide = _places(matrix, tf.repeat(x, 3), y)
    x_taps = _taps(x_in, x_wide, width, interpolation if "x" in along else "nearest")
    y_taps = _taps(y_in, y_wide, height, interpolation if "y" in along else "nearest")
    pixels = tf.reshape(image, [-1, 3])

    def row(row_index: tf.Tensor) -> tf.Tensor:
        terms = []
        for column_index, weight in x_taps:
            value = _pick(pixels, row_index * width + column_index)
            terms.append(tf.reshape(tf.cast(value, tf.float32), tf.shape(x_wide)) * weight)
        return tf.add_n(terms)

    result = tf.add_n([row(row_index) * weight for row_index, weight in y_taps])
    result = tf.floor(tf.clip_by_value(result, 0, 255))
    inside = _inside(x_wide, width) * _inside(y_wide, height)
    border = tf.tile(_rgb(fill, tf.float32), [width])
    result = result * inside + border * (1 - inside)
    return tf.ensure_shape(tf.reshape(tf.cast(result, tf.uint8), tf.shape(image)), image.shape)


def translate(
    image: tf.Tensor, left: tf.Tensor, up: tf.Tensor, fill: int | Sequence[int] = 128
) -> tf.Tensor:
    """Moves the image by whole pixels: `warp` with interpolation "nearest", but faster.

    Args:
      image: uint8 `[h, w, 3]`.
      left: pixels, float32; rounded.
      up: likewise.
      fill: grey level or red, green, blue.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    up = tf.clip_by_value(tf.cast(tf.floor(up + 0.5), tf.int32), -height, height)
    left = tf.clip_by_value(tf.cast(tf.floor(left + 0.5), tf.int32), -width, width)
    rows = tf.reshape(image, [height, -1])
    rows = rows[tf.maximum(up, 0) : height + tf.minimum(up, 0)]
    rows = rows[:, tf.maximum(left, 0) * 3 : (width + tf.minimum(left, 0)) * 3]
    border = tf.tile(_rgb(fill, tf.uint8), [width])[None]

    def beside(pixels: tf.Tensor) -> tf.Tensor:
        return tf.tile(border[:, : pixels * 3], [tf.shape(rows)[0], 1])

    across = [beside(tf.maximum(-left, 0)), rows, beside(tf.maximum(left, 0))]
    above = tf.tile(border, [tf.maximum(-up, 0), 1])
    below = tf.tile(border, [tf.maximum(up, 0), 1])
    moved = tf.concat([above, tf.concat(across, axis=1), below], axis=0)
    return tf.ensure_shape(tf.reshape(moved, tf.shape(image)), image.shape)


def _places(matrix: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the pixels come from: x and y, each `[h, len(x)]`."""
    (a, b, c), (d, e, f) = (tf.unstack(row) for row in tf.unstack(matrix))
    return a * x + (b * y + c), d * x + (e * y + f)


def _nearest(
    image: tf.Tensor, x_in: tf.Tensor, y_in: tf.Tensor, fill: int | Sequence[int]
) -> tf.Tensor:
    height, width = tf.unstack(tf.shape(image)[:2])
    # One pixel of fill all around, which is read for all that lies outside.
    border = tf.tile(_rgb(fill, tf.uint8), [width + 2])[None]
    side = tf.tile(border[:, :3], [height, 1])
    rows = tf.concat([side, tf.reshape(image, [height, -1]), side], axis=1)
    framed = tf.reshape(tf.concat([border, rows, border], axis=0), [-1, 3])
    row = tf.cast(tf.clip_by_value(y_in, 0, _float(height + 1)), tf.int32)
    column = tf.cast(tf.clip_by_value(x_in, 0, _float(width + 1)), tf.int32)
    return tf.ensure_shape(_pick(framed, row * (width + 2) + column), image.shape)


def _pick(pixels: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """`tf.gather`, which for slices of few bytes takes half as long again."""
    return tf.gather_nd(pixels, index[..., None])


def _taps(
    place: tf.Tensor, place_wide: tf.Tensor, size: tf.Tensor, interpolation: str
) -> list[tuple[tf.Tensor, tf.Tensor | float]]:
    """Pairs of neighbour and weight along one axis: indices `[h, w]`, weights `[h, w * 3]`."""

    def index(position: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.clip_by_value(position, 0, _float(size - 1)), tf.int32)

    if interpolation == "nearest":
        return [(index(tf.floor(place + 0.5)), 1.0)]
    first = tf.floor(place)
    t = place_wide - tf.floor(place_wide)
    if interpolation == "bilinear":
        return [(index(first), 1 - t), (index(first + 1), t)]
    # Keys (1981), "Cubic convolution interpolation for digital image processing", a = -1.
    u = 1 - t
    weights = [-t * u * u, u * (1 + t - t * t), t * (1 + u - u * u), -u * t * t]
    return [(index(first + offset), w) for offset, w in zip((-1, 0, 1, 2), weights, strict=True)]


def _inside(place: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    inside = tf.logical_and(place >= -0.5, place < _float(size) - 0.5)
    return tf.cast(inside, tf.float32)


def _rgb(fill: int | Sequence[int], dtype: tf.DType) -> tf.Tensor:
    return tf.constant([fill] * 3 if isinstance(fill, int) else list(fill), dtype)


def _float(number: tf.Tensor) -> tf.Tensor:
    return tf.cast(number, tf.float32)
