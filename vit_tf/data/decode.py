"""Decoding JPEG, PNG, WebP, GIF and BMP in TensorFlow graph code, with what its kernels lack.

TensorFlow 2.20 by itself reserves the memory that a PNG's header claims, takes the palette of a BMP
for grey levels, refuses WebPs with alpha where 3 channels are wanted, and writes beyond its memory
when an animated WebP has no alpha. Here the first bytes choose a way that is safe, or an error that
says why there is none.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import tensorflow as tf

from vit_tf.data import exif
from vit_tf.data.image_head import ImageHead, is_png_of_at_most
from vit_tf.data.op_registry import require

# 512 MiB of RGB: more is refused by TensorFlow's JPEG decoder, and by Pillow as a bomb.
MAX_PIXELS = 2**29 // 3

_MISNAMED_GIF = r"(?i).*\.(jpe?g|png|bmp)"
_PROBLEMS = (  # in the order of `ImageHead.problem`
    "not a JPEG, PNG, WebP, GIF or BMP",
    "the image is empty",
    "an animated WebP, which TensorFlow cannot decode; store its first frame alone",
    "a BMP that is not uncompressed and 24- or 32-bit; store it as PNG",
)

_with_calls = contextvars.ContextVar("with_calls", default=True)


@contextlib.contextmanager
def without_calls() -> Iterator[None]:
    """Images decoded inside are decoded without function calls in their graph.

    TensorFlow 2.20 loses about a kilobyte of memory each time that an op fails within a call: too
    much for a server that is sent damaged images for months. A JPEG costs some ops more then.
    """
    token = _with_calls.set(False)
    try:
        yield
    finally:
        _with_calls.reset(token)


def decode_image(
    encoded: tf.Tensor,
    channels: int = 3,
    exif_orientation: bool = False,
    accurate_dct: bool = False,
    max_pixels: int = MAX_PIXELS,
    filename: tf.Tensor | None = None,
) -> tf.Tensor:
    """Decodes an image of any of the five formats; the bytes decide which, not a file name.

    Three channels are those of Pillow's `convert("RGB")`, to the bit for PNG, WebP, GIF and BMP,
    and for JPEG if `accurate_dct`. CMYK and YCCK JPEGs become RGB. 16-bit PNGs lose their low 8
    bits (Pillow clips grey ones). Of a GIF the first frame is taken, transparent pixels black.
    Alpha is dropped, not blended; with 4 channels it is kept, but for BMPs and for PNGs of fewer
    than 8 bits.

    Args:
      encoded: scalar string.
      channels: 1 (grey), 3 (RGB) or 4 (RGBA; opaque where there is no alpha).
      exif_orientation: turn a JPEG upright by its EXIF tag, as `PIL.ImageOps.exif_transpose` does.
      accurate_dct: libjpeg's accurate inverse DCT (Pillow's) instead of its fast one
        (TensorFlow's default), which differs by a few grey levels.
      max_pixels: most pixels that a header may claim; more is an error before they are allocated.
      filename: what the image was called, if that is known; see `is_misnamed_gif`.

    Returns:
      uint8 `[h, w, channels]`.

    Raises:
      ValueError: see `check_decoding`.
      tf.errors.InvalidArgumentError: on execution, for empty, truncated, corrupt, too large and
        unsupported images, and for misnamed GIFs.
    """
    check_decoding(channels, max_pixels)
    filename = tf.convert_to_tensor("" if filename is None else filename)

    def jpeg() -> tf.Tensor:
        image = _decode_jpeg(encoded, channels, accurate_dct, max_pixels)
        if exif_orientation:
            image = exif.turn_upright(image, exif.jpeg_orientation(encoded))
        return image

    def rare(encoded: tf.Tensor) -> tf.Tensor:
        return _decode_other(encoded, channels, max_pixels, filename)

    def other(encoded: tf.Tensor) -> tf.Tensor:
        if channels == 4:
            return rare(encoded)
        is_usual = is_png_of_at_most(max_pixels, encoded)
        return _if(is_usual, lambda: tf.io.decode_png(encoded, channels), rare, encoded)

    image = if_jpeg(encoded, jpeg, other)
    return tf.ensure_shape(image, [None, None, channels])


def if_jpeg(
    encoded: tf.Tensor, jpeg: Callable[[], tf.Tensor], other: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """The image that `jpeg` makes if the bytes are those of a JPEG, else that of `other(encoded)`.

    JPEGs pay for one comparison only.
    """
    encoded = tf.convert_to_tensor(encoded)  # bytes would become a constant of the call
    return _if(tf.strings.substr(encoded, 0, 2) == b"\xff\xd8", jpeg, other, encoded)


def _if(
    condition: tf.Tensor,
    usual: Callable[[], tf.Tensor],
    rare: Callable[[tf.Tensor], tf.Tensor],
    argument: tf.Tensor,
) -> tf.Tensor:
    """`tf.cond` between `usual()` and `rare(argument)`.

    Each op of a branch that is not taken costs time, unless the branch is one call, as `rare` is
    but for `without_calls`.
    """
    if not _with_calls.get():
        return tf.cond(condition, usual, lambda: rare(argument))
    call = tf.function(rare, autograph=False, experimental_attributes={"_noinline": True})
    return tf.cond(condition, usual, lambda: call(argument))


def is_misnamed_gif(encoded: tf.Tensor, filename: tf.Tensor) -> tf.Tensor:
    """Whether a GIF hides under another image format's name (TensorFlow graph code).

    Such files are mostly the placeholders that photo sites send for removed pictures, or
    animations.
    """
    is_gif = tf.strings.substr(encoded, 0, 4) == b"GIF8"
    return is_gif & tf.strings.regex_full_match(filename, _MISNAMED_GIF)


def check_decoding(channels: int, max_pixels: int) -> None:
    """Raises ValueError unless `channels` is 1, 3 or 4 and `max_pixels` in 1..`MAX_PIXELS`."""
    if channels not in (1, 3, 4):
        raise ValueError("channels must be 1, 3 or 4")
    if not 1 <= max_pixels <= MAX_PIXELS:
        raise ValueError(f"max_pixels must be in 1..{MAX_PIXELS}, got {max_pixels}")


def _jpeg_shape(encoded: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Height, width and channels of a JPEG, int32 `[3]`, from its header.

    Fails, on execution, where that claims more than `max_pixels`, and for other formats.
    """
    shape = tf.io.extract_jpeg_shape(encoded)
    height, width = tf.unstack(tf.cast(shape[:2], tf.int64))
    return shape * require(height * width <= max_pixels, _too_large(height, width, max_pixels))


def _decode_jpeg(
    encoded: tf.Tensor, channels: int, accurate_dct: bool, max_pixels: int
) -> tf.Tensor:
    dct_method = "INTEGER_ACCURATE" if accurate_dct else ""

    def decode(wanted: int) -> tf.Tensor:
        return tf.io.decode_jpeg(encoded, channels=wanted, dct_method=dct_method)

    if channels > 1 and max_pixels == MAX_PIXELS:  # the kernel's own limit
        return _with_channels(decode(3), channels)
    # The choice needs the checked shape, so nothing is decoded before the check. The kernel knows
    # no way from the 4 components of CMYK to grey.
    return tf.cond(
        _jpeg_shape(encoded, max_pixels)[2] == 4,
        lambda: _with_channels(decode(3), channels),
        lambda: decode(1) if channels == 1 else _with_channels(decode(3), channels),
    )


def _decode_other(
    encoded: tf.Tensor, channels: int, max_pixels: int, filename: tf.Tensor
) -> tf.Tensor:
    """Any format but JPEG."""
    head = ImageHead(encoded)
    is_misnamed = is_misnamed_gif(encoded, filename)
    is_small = head.height * head.width <= max_pixels

    def decode(wanted: int) -> tf.Tensor:
        return tf.io.decode_image(encoded, channels=wanted, expand_animations=False)

    def png() -> tf.Tensor:
        return decode(channels)

    def rgb() -> tf.Tensor:
        return _with_channels(decode(3), channels)

    def webp() -> tf.Tensor:
        image = tf.ensure_shape(decode(0), [None, None, None])  # 3 channels, or 4 with alpha
        return _with_channels(image if channels == 4 else image[..., :3], channels)

    def fail() -> tf.Tensor:
        too_large = _too_large(head.height, head.width, max_pixels)
        message = tf.where(is_small, tf.gather(_PROBLEMS, head.problem()), too_large)
        message = tf.where(is_misnamed, "a GIF under the name of another format", message)
        one = require(False, message)
        return tf.fill([one, one, channels], tf.constant(0, tf.uint8))

    is_rgb = head.is_gif | head.is_plain_bmp
    if channels == 4:  # the kernel's opaque would be 1 in a 1-bit PNG and 15 in a 4-bit one
        is_rgb |= head.is_png & (head.png_bits < 8)
    fits = tf.stack([is_rgb, head.is_png, head.is_still_webp])
    fits &= is_small & ~is_misnamed
    fits = tf.concat([fits, [True]], axis=0)  # the first that is true is taken
    return tf.switch_case(tf.argmax(fits, output_type=tf.int32), [rgb, png, webp, fail])


def _with_channels(image: tf.Tensor, wanted: int) -> tf.Tensor:
    """RGB as grey or with opaque alpha; the number of channels may be unknown before."""
    if wanted == image.shape[-1]:
        return image
    if wanted == 1:
        return tf.image.rgb_to_grayscale(image)
    missing = wanted - tf.shape(image)[-1]
    return tf.pad(image, [[0, 0], [0, 0], [0, missing]], constant_values=255)


def _too_large(height: tf.Tensor, width: tf.Tensor, max_pixels: int) -> tf.Tensor:
    size = [tf.strings.as_string(height), "x", tf.strings.as_string(width)]
    claim = ["the header claims ", *size, f" pixels, more than max_pixels={max_pixels}"]
    return tf.strings.join(claim)
