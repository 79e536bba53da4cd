"""What the first bytes of a PNG, WebP, GIF or BMP say, read in TensorFlow graph code.

Layouts: PNG specification (W3C) 11.2.2; GIF89a, section 18; WebP, RFC 9649; BMP, Microsoft's
BITMAPFILEHEADER and BITMAPINFOHEADER.

Everything is read at once, as rows of small tables: each op of a graph costs time, even in a branch
that is not taken.
"""

import numpy as np
import tensorflow as tf

_HEAD_BYTES = 80
_NO_COMPRESSION, _BITFIELDS = 0, 3

_FORMATS = {  # the bytes by which a format is known, by where they stand
    "png": {0: b"\x89PNG\r\n\x1a\n"},
    "gif": {0: b"GIF8"},
    "bmp": {0: b"BM"},
    "webp_extended": {0: b"RIFF", 8: b"WEBPVP8X"},
    "webp_lossless": {0: b"RIFF", 8: b"WEBPVP8L"},
    "webp_lossy": {0: b"RIFF", 8: b"WEBPVP8 "},
}
_BGRA_MASKS = {54: b"\x00\x00\xff\x00\x00\xff\x00\x00\xff\x00\x00\x00"}
_FIELDS = {  # (first byte, bytes, whether big-endian); heights, then widths, in _FORMATS' order
    "png_height": (20, 4, True),
    "gif_height": (8, 2, False),
    "bmp_height": (22, 4, False),
    "webp_extended_height": (27, 3, False),
    "webp_lossless_height": (21, 4, False),
    "webp_lossy_height": (28, 2, False),
    "png_width": (16, 4, True),
    "gif_width": (6, 2, False),
    "bmp_width": (18, 4, False),
    "webp_extended_width": (24, 3, False),
    "webp_lossless_width": (21, 4, False),
    "webp_lossy_width": (26, 2, False),
    "png_bits": (24, 1, False),
    "webp_flags": (20, 1, False),
    "bmp_header_bytes": (14, 4, False),
    "bmp_bits": (28, 2, False),
    "bmp_compression": (30, 4, False),
}
# A side is field // divisor % modulus + offset: WebP packs 14 bits each, or stores one less.
_DIVISORS = [[1, 1, 1, 1, 2**14, 1], [1, 1, 1, 1, 1, 1]]
_MODULI = [2**32, 2**32, 2**32, 2**32, 2**14, 2**14]
_OFFSETS = [0, 0, 0, 1, 1, 0]


class ImageHead:
    """Format and size of an encoded image, before anything is decoded.

    Args:
      encoded: scalar string; it may be shorter than a header.

    Attributes:
      is_png: whether it is a PNG; so are `is_gif`, `is_bmp` and `is_webp`. At most one is true.
      height: as the header claims it, int64; 0 for unknown formats.
      width: likewise.
      png_bits: bits a sample.
      is_still_webp: whether a WebP declares no frames.
      is_plain_bmp: whether a BMP has uncompressed pixels of 24 or 32 bits.
    """

    def __init__(self, encoded: tf.Tensor):
        self._encoded = encoded
        head = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=_HEAD_BYTES), tf.int64)
        magics = np.stack([_magic_row(magic) for magic in (*_FORMATS.values(), _BGRA_MASKS)])
        matches = tf.reduce_all((head == magics) | (magics < 0), axis=1)
        weights = np.stack([_weight_row(*field) for field in _FIELDS.values()])
        numbers = tf.reduce_sum(head * weights, axis=1)

        self.is_png, self.is_gif, self.is_bmp, is_extended, _, _, is_bgra = tf.unstack(matches)
        self.is_webp = tf.reduce_any(matches[3:6])
        *_, self.png_bits, webp_flags, header_bytes, bits, compression = tf.unstack(numbers)
        self.height, self.width = tf.unstack(_sides(numbers[:12], matches[:6]))
        self.is_still_webp = self.is_webp & ~(is_extended & (webp_flags // 2 % 2 == 1))
        self.is_plain_bmp = (
            self.is_bmp
            & (header_bytes >= 40)  # not the older OS/2 header
            & ((bits == 24) | (bits == 32))
            & ((compression == _NO_COMPRESSION) | (compression == _BITFIELDS) & is_bgra)
        )

    def problem(self) -> tf.Tensor:
        """Why it cannot be decoded: 1 empty, 2 an animation, 3 an odd BMP, 0 something else."""
        is_empty = tf.strings.length(self._encoded) == 0
        return tf.where(is_empty, 1, tf.where(self.is_webp, 2, tf.where(self.is_bmp, 3, 0)))


def is_png_of_at_most(max_pixels: int, encoded: tf.Tensor) -> tf.Tensor:
    """Whether bytes are those of a PNG whose header claims no more pixels; bool scalar.

    By fewer ops than `ImageHead` takes, for the second most frequent format.
    """
    words = tf.io.decode_raw(encoded, tf.int32, little_endian=False, fixed_length=24)
    magic = np.frombuffer(_FORMATS["png"][0], ">i4").astype(np.int32)
    pixels = tf.reduce_prod(tf.cast(words[4:], tf.int64))
    return tf.reduce_all(words[:2] == magic) & (pixels <= max_pixels)


def _sides(fields: tf.Tensor, is_format: tf.Tensor) -> tf.Tensor:
    """Height and width, int64 `[2]`, out of all formats' fields `[12]`."""
    fields = tf.reshape(fields, [2, 6]) // _DIVISORS % _MODULI + _OFFSETS
    fields = tf.minimum(fields, 2**32 - fields)  # BMPs stored from the top have negative heights
    return tf.reduce_sum(tf.where(is_format, fields, 0), axis=1)


def _magic_row(magic: dict[int, bytes]) -> np.ndarray:
    """The head's bytes as they must be, -1 where they may be anything."""
    row = np.full(_HEAD_BYTES, -1)
    for start, expected in magic.items():
        row[start : start + len(expected)] = list(expected)
    return row


def _weight_row(start: int, num_bytes: int, big_endian: bool) -> np.ndarray:
    """What each byte of the head counts in a number."""
    row = np.zeros(_HEAD_BYTES, np.int64)
    weights = [256**place for place in range(num_bytes)]
    row[start : start + num_bytes] = weights[::-1] if big_endian else weights
    return row
