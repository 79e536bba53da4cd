"""Decoding: every format and colour mode against Pillow, EXIF, and files that are not well."""

import functools
import io
import resource
import struct

import numpy as np
import pytest
import tensorflow as tf
import tiny_records
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vit_tf.data.decode import MAX_PIXELS, decode_image
from vit_tf.data.preprocess import Preprocess

HEIGHT, WIDTH = 18, 26


def smooth() -> Image.Image:
    """An image of soft gradients, as photographs are: what JPEG is made for."""
    corners = Image.fromarray(tiny_records.pixels(0, 3, 4))
    return corners.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


RGB = smooth()
ALPHA = RGB.getchannel("G").point(lambda value: 255 - value)
RGBA = Image.merge("RGBA", (*RGB.split(), ALPHA))
PALETTE, FEW_COLOURS = RGB.quantize(200), RGB.quantize(13)
DEEP = np.asarray(RGB.convert("L")).astype(np.uint16) * 257


def encode(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def ycck(cmyk_jpeg: bytes) -> bytes:
    """The same samples, declared as YCCK by the Adobe segment's last byte."""
    at = cmyk_jpeg.index(b"Adobe") + 11
    return cmyk_jpeg[:at] + b"\x02" + cmyk_jpeg[at + 1 :]


LOSSLESS = {
    "png": encode(RGB, "PNG"),
    "png_grey": encode(RGB.convert("L"), "PNG"),
    "png_grey_alpha": encode(RGBA.convert("LA"), "PNG"),
    "png_alpha": encode(RGBA, "PNG"),
    "png_palette": encode(PALETTE, "PNG"),
    "png_palette_4_bit": encode(FEW_COLOURS, "PNG", bits=4),
    "png_palette_transparency": encode(PALETTE, "PNG", transparency=bytes(range(200))),
    "png_1_bit": encode(RGB.convert("1"), "PNG"),
    "gif": encode(PALETTE, "GIF"),
    "bmp": encode(RGB, "BMP"),
    "bmp_32_bit": encode(RGBA, "BMP"),
    "webp_lossless": encode(RGB, "WEBP", lossless=True),
    "webp_lossless_alpha": encode(RGBA, "WEBP", lossless=True, exact=True),
    "webp_lossy": encode(RGB, "WEBP", quality=80),
    "webp_lossy_alpha": encode(RGBA, "WEBP", quality=80, exact=True),
    "webp_with_metadata": encode(RGB, "WEBP", exif=b"Exif\0\0MM"),
}
JPEG = {
    "jpeg": encode(RGB, "JPEG", quality=90),
    "jpeg_progressive": encode(RGB, "JPEG", progressive=True),
    "jpeg_full_chroma": encode(RGB, "JPEG", subsampling=0),
    "jpeg_grey": encode(RGB.convert("L"), "JPEG"),
    "jpeg_cmyk": encode(RGB.convert("CMYK"), "JPEG"),
    "jpeg_ycck": ycck(encode(RGB.convert("CMYK"), "JPEG")),
}
ALL = LOSSLESS | JPEG


@functools.cache
def traced(**options) -> tf.types.experimental.PolymorphicFunction:
    return tf.function(
        lambda encoded: decode_image(encoded, **options),
        autograph=False,
        input_signature=[tf.TensorSpec([], tf.string)],
    )


def decode_in_graph(encoded: bytes, **options) -> tf.Tensor:
    """Decodes as an input does; eager, each call would trace the formats but JPEG anew."""
    return traced(**options)(encoded)


def pillow(encoded: bytes, mode: str = "RGB") -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(encoded)).convert(mode)).astype(int)
    return pixels[..., np.newaxis] if mode == "L" else pixels


def claiming(encoded: bytes, height: int, width: int) -> bytes:
    """The same file with another size in its header."""
    if encoded.startswith(b"\xff\xd8"):
        start = next(i for i in map(encoded.find, (b"\xff\xc0", b"\xff\xc2")) if i > 0) + 5
        size = struct.pack(">HH", height, width)
    elif encoded.startswith(b"\x89PNG"):
        start, size = 16, struct.pack(">II", width, height)
    elif encoded.startswith(b"GIF"):
        start, size = 6, struct.pack("<HH", width, height)
    elif encoded.startswith(b"BM"):
        start, size = 18, struct.pack("<ii", width, height)
    elif encoded[12:16] == b"VP8 ":
        start, size = 26, struct.pack("<HH", width, height)
    elif encoded[12:16] == b"VP8L":
        start, size = 21, struct.pack("<I", (width - 1) | (height - 1) << 14)
    else:
        start = 24
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return encoded[:start] + size + encoded[start + len(size) :]


@pytest.mark.parametrize("name", LOSSLESS)
def test_three_channels_are_pillows_to_the_bit(name):
    np.testing.assert_array_equal(decode_in_graph(LOSSLESS[name]), pillow(LOSSLESS[name]))


@pytest.mark.parametrize("name", JPEG)
def test_jpeg_is_pillows_within_the_fast_transforms_tolerance(name):
    difference = np.abs(decode_in_graph(JPEG[name]).numpy() - pillow(JPEG[name]))
    assert difference.max() <= 5 and difference.mean() < 1.5


@pytest.mark.parametrize("name", JPEG)
def test_jpeg_by_the_accurate_transform_is_pillows(name):
    # To the bit, but for the rounding of CMYK's way to RGB, which is not the decoder's.
    tolerance = 1 if name in ("jpeg_cmyk", "jpeg_ycck") else 0
    difference = decode_in_graph(JPEG[name], accurate_dct=True).numpy() - pillow(JPEG[name])
    assert np.abs(difference).max() <= tolerance


@pytest.mark.parametrize("name", ALL)
def test_grey_is_pillows_within_the_weights_rounding(name):
    tolerance = 5 if name in JPEG else 1
    difference = decode_in_graph(ALL[name], channels=1).numpy() - pillow(ALL[name], "L")
    assert np.abs(difference).max() <= tolerance


@pytest.mark.parametrize("name", sorted(set(ALL) - {"bmp_32_bit"}))
def test_four_channels_have_pillows_alpha(name):
    rgba = decode_in_graph(ALL[name], channels=4).numpy()
    np.testing.assert_array_equal(rgba[..., 3], pillow(ALL[name], "RGBA")[..., 3])
    np.testing.assert_array_equal(rgba[..., :3], decode_in_graph(ALL[name]))


def test_16_bit_png_keeps_its_high_bytes():
    grey = encode(Image.fromarray(DEEP), "PNG")
    np.testing.assert_array_equal(decode_image(grey)[..., 1], DEEP >> 8)
    colour = tf.io.encode_png(np.stack([DEEP, DEEP, DEEP], -1)).numpy()
    np.testing.assert_array_equal(decode_image(colour), pillow(colour))


def test_of_an_animated_gif_the_first_frame_is_taken():
    other = [RGB.rotate(90).quantize(200), RGB.rotate(180).quantize(200)]
    animated = encode(PALETTE, "GIF", save_all=True, append_images=other)
    np.testing.assert_array_equal(decode_image(animated), pillow(LOSSLESS["gif"]))


def test_a_transparent_pixel_of_a_gif_is_black():
    gif = encode(FEW_COLOURS, "GIF", transparency=3)
    is_clear = pillow(gif, "RGBA")[..., 3] == 0
    expected = np.where(is_clear[..., np.newaxis], 0, pillow(gif))
    assert is_clear.any()
    np.testing.assert_array_equal(decode_image(gif), expected)


def test_a_bmp_may_be_stored_from_the_top():
    bmp = LOSSLESS["bmp"]
    flipped = bmp[:22] + struct.pack("<i", -HEIGHT) + bmp[26:]
    np.testing.assert_array_equal(decode_image(flipped), pillow(flipped))
    np.testing.assert_array_equal(decode_image(flipped), pillow(bmp)[::-1])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_static_shape_tells_the_channels(channels):
    spec = tf.TensorSpec([], tf.string)
    traced = tf.function(lambda e: decode_image(e, channels)).get_concrete_function(spec)
    assert traced.structured_outputs.shape.as_list() == [None, None, channels]


# EXIF orientation


def with_orientation(orientation: int, little_endian: bool = True, **options) -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x0131] = "maker", orientation, "software"
    exif.endian = "<" if little_endian else ">"
    return encode(RGB, "JPEG", exif=exif.tobytes(), **options)


@pytest.mark.parametrize("little_endian", [True, False])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_as_pillow_does(orientation, little_endian):
    encoded = with_orientation(orientation, little_endian)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    result = decode_in_graph(encoded, exif_orientation=True, accurate_dct=True)
    np.testing.assert_array_equal(result, np.asarray(turned))


def test_exif_is_left_alone_by_default():
    upright = decode_image(with_orientation(1))
    np.testing.assert_array_equal(decode_image(with_orientation(6)), upright)
    np.testing.assert_array_equal(
        Preprocess("decode").image_from_bytes(with_orientation(6)), upright
    )
    turned = Preprocess("decode(exif=True)").image_from_bytes(with_orientation(6))
    np.testing.assert_array_equal(turned, np.rot90(upright, -1))


def test_exif_is_found_behind_other_segments():
    encoded = with_orientation(3, comment=b"a remark", icc_profile=bytes(70_000))
    segments = [b"\xff\xe0\x00\x04ab", b"\xff\xe1\x00\x0ahttp://x"]  # APP0; XMP is APP1 too
    encoded = encoded[:2] + b"".join(segments) + encoded[2:]
    expected = decode_image(with_orientation(3))[::-1, ::-1]
    np.testing.assert_array_equal(decode_image(encoded, exif_orientation=True), expected)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation):
    encoded = with_orientation(orientation)
    np.testing.assert_array_equal(
        decode_image(encoded, exif_orientation=True), decode_image(encoded)
    )


@settings(max_examples=30, deadline=None)
@given(at=st.integers(4, 110), value=st.integers(0, 255))
def test_damaged_exif_turns_or_does_not_but_never_hangs(at, value):
    encoded = bytearray(with_orientation(6))
    encoded[at] = value
    try:
        height, width, _ = decode_in_graph(bytes(encoded), exif_orientation=True).shape
    except tf.errors.InvalidArgumentError:
        return  # no JPEG any more
    assert {height, width} == {HEIGHT, WIDTH}


def test_exif_of_other_formats_is_not_read():
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = encode(RGB, "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(encoded, exif_orientation=True), pillow(encoded))


# Crops


@pytest.mark.parametrize("name", ["png_palette", "webp_lossy_alpha", "bmp", "gif"])
def test_a_crop_sees_the_same_pixels_whatever_the_format(name):
    def crop(encoded: bytes) -> np.ndarray:
        features = {"image": tf.constant(encoded), "seed": tf.constant([1, 2], tf.int64)}
        return Preprocess("decode|inception_crop(8)|flip_lr")(features)["image"].numpy()

    same_pixels = encode(Image.fromarray(pillow(ALL[name]).astype(np.uint8)), "PNG")
    np.testing.assert_array_equal(crop(ALL[name]), crop(same_pixels))


def test_a_crop_is_cut_from_the_turned_image():
    preprocess = Preprocess("decode(exif=True)|central_crop((20, 10))")
    turned = decode_image(with_orientation(6), exif_orientation=True).numpy()
    top, left = (WIDTH - 20) // 2, (HEIGHT - 10) // 2
    np.testing.assert_array_equal(
        preprocess.image_from_bytes(with_orientation(6)),
        turned[top : top + 20, left : left + 10],
    )


# Files that are not well


@pytest.mark.parametrize("name", ALL)
def test_a_truncated_image_is_an_error(name):
    for share in (0.3, 0.7):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode_in_graph(ALL[name][: int(len(ALL[name]) * share)])


@pytest.mark.parametrize(
    ("encoded", "problem"),
    [
        (b"", "the image is empty"),
        (b"x", "not a JPEG, PNG, WebP, GIF or BMP"),
        (b"<html>404</html>", "not a JPEG, PNG, WebP, GIF or BMP"),
        (encode(RGB, "TIFF"), "not a JPEG, PNG, WebP, GIF or BMP"),
        (encode(RGB.convert("1"), "BMP"), "a BMP that is not uncompressed and 24- or 32-bit"),
        (encode(PALETTE, "BMP"), "a BMP that is not uncompressed and 24- or 32-bit"),
        (
            encode(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(90)], lossless=True),
            "an animated WebP, which TensorFlow cannot decode; store its first frame alone",
        ),
        (
            encode(RGBA, "WEBP", save_all=True, append_images=[RGBA.rotate(90)], lossless=True),
            "an animated WebP",
        ),
    ],
)
def test_what_cannot_be_decoded_is_said(encoded, problem):
    for decode in (decode_image, decode_in_graph):
        with pytest.raises(tf.errors.InvalidArgumentError, match=problem):
            decode(encoded)


@pytest.mark.parametrize("name", ["png", "png_1_bit", "gif", "bmp", "webp_lossless"])
def test_a_header_of_too_many_pixels_is_refused_before_memory_is_reserved(name):
    height, width = (16_000, 16_000) if name.startswith("webp") else (20_000, 20_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = f"the header claims {height}x{width} pixels, more than max_pixels={MAX_PIXELS}"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode_in_graph(claiming(LOSSLESS[name], height, width))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


@pytest.mark.parametrize("name", ["jpeg", "jpeg_progressive"])
@pytest.mark.parametrize("ops", ["decode", "decode_jpeg_and_inception_crop(8, area_min=90)"])
def test_a_jpeg_of_too_many_pixels_is_refused_before_memory_is_reserved(name, ops):
    encoded = claiming(JPEG[name], 20_000, 20_000)
    features = {"image": tf.constant(encoded), "seed": tf.constant([0, 0], tf.int64)}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(tf.errors.InvalidArgumentError):
        Preprocess(ops)(features)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", ALL)
def test_max_pixels_is_the_largest_size_that_passes(name, channels):
    size = HEIGHT * WIDTH
    exact = decode_in_graph(ALL[name], channels=channels, max_pixels=size)
    np.testing.assert_array_equal(exact, decode_in_graph(ALL[name], channels=channels))
    message = f"the header claims {HEIGHT}x{WIDTH} pixels, more than max_pixels={size - 1}"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode_in_graph(ALL[name], channels=channels, max_pixels=size - 1)


@pytest.mark.parametrize("max_pixels", [0, MAX_PIXELS + 1])
def test_max_pixels_has_a_range(max_pixels):
    message = f"max_pixels must be in 1..{MAX_PIXELS}, got {max_pixels}"
    with pytest.raises(ValueError, match=message):
        Preprocess(f"decode(max_pixels={max_pixels})")


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(ALL)),
    changes=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_header_is_an_error_or_an_image(name, changes):
    encoded = bytearray(ALL[name])
    for at, value in changes:
        encoded[at] = value
    try:
        image = decode_in_graph(bytes(encoded), max_pixels=10**6)
    except tf.errors.InvalidArgumentError:
        return
    assert image.dtype == tf.uint8 and image.shape[-1] == 3
