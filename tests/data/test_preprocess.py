"""Preprocessing strings: parsing, seeds, serving; and each op against NumPy or Pillow."""

import functools
import io
import re

import numpy as np
import pytest
import tensorflow as tf
import tiny_records
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from official.vision.ops import preprocess_ops
from PIL import Image

from vit_tf.data.op_registry import draw, get_op, register_op
from vit_tf.data.preprocess import Preprocess


@functools.lru_cache(maxsize=4)
def traced(ops: str) -> tf.types.experimental.PolymorphicFunction:
    """A graph, as inputs run it: eager, each call would trace its decoder anew."""
    image, seed = tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int64)
    return tf.function(
        Preprocess(ops), autograph=False, input_signature=[{"image": image, "seed": seed}]
    )


def run(ops: str, encoded: bytes, seed: tuple[int, int] = (0, 0)) -> np.ndarray:
    features = {"image": tf.constant(encoded), "seed": tf.constant(seed, tf.int64)}
    return traced(ops)(features)["image"].numpy()


def saved(image: np.ndarray, file_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, file_format)
    return buffer.getvalue()


# Strings


def test_canonical_string_reads_back():
    text = "decode()|inception_crop( 224,area_min = 8 )|flip_lr|value_range(-1,1)"
    canonical = "decode|inception_crop(224, area_min=8)|flip_lr|value_range(-1, 1)"
    assert str(Preprocess(text)) == canonical == str(Preprocess(canonical))


def test_misspelt_op_is_answered_with_the_closest():
    message = "No preprocessing op 'inceptoin_crop'. Did you mean 'inception_crop' or "
    with pytest.raises(ValueError, match=re.escape(message)):
        Preprocess("decode|inceptoin_crop(224)")


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("central_crop()", "missing a required argument: 'size'"),
        ("central_crop(8, padding=2)", "got an unexpected keyword argument 'padding'"),
        ("central_crop('8')", "size cannot be '8'"),
        ("central_crop(0)", "size must be a positive int or (height, width), got 0"),
        (
            "central_crop((1, 2, 3))",
            "size must be a positive int or (height, width), got (1, 2, 3)",
        ),
    ],
)
def test_bad_arguments_are_answered_with_the_signature(call, problem):
    signature = "Its signature is central_crop(size: int | Sequence[int])"
    with pytest.raises(ValueError, match=re.escape(problem) + ".*" + re.escape(signature)):
        Preprocess(f"decode|{call}")


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("resize(True)", "height cannot be True"),
        ("resize(3.5)", "height cannot be 3.5"),
        (
            "resize_small((3, 4, 5))",
            "size must be a positive int or (height, width), got (3, 4, 5)",
        ),
        ("resize(8, antialias='no')", "antialias cannot be 'no'"),
        ("randaug(2.5, 10)", "num_layers cannot be 2.5"),
        ("color_jitter('a')", "brightness cannot be 'a'"),
        ("augmix(3)", "config cannot be 3"),
        ("augmix(fill=(1, 2))", "fill cannot be (1, 2)"),
        ("augmix(fill=300)", "fill must be in 0..255, got 300"),
        ("keep('image', 3)", "keys cannot be 3"),
        ("standardize(std=0)", "std must be above 0, got 0"),
        ("standardize((1, 2))", "mean must be one number or three, got (1, 2)"),
        ("value_range(1, 1)", "low and high must differ, got 1 twice"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused_before_anything_runs(call, problem):
    with pytest.raises(ValueError, match=re.escape(problem) + ".*Its signature is"):
        Preprocess(f"decode|{call}")


@pytest.mark.parametrize("call", ["resize((8, 6))", "resize(8, 6)", "resize([8, 6])"])
def test_a_size_is_one_number_or_height_and_width(call):
    assert Preprocess(f"decode|{call}").image_shape == (8, 6, 3)


@pytest.mark.parametrize(
    "ops", ["flip_lr", "decode|decode", "decode|decode_jpeg_and_central_crop(8)"]
)
def test_decoding_comes_first_and_once(ops):
    with pytest.raises(ValueError, match="must begin with decode, and decode once"):
        Preprocess(ops)


def test_preprocessing_is_a_string():
    with pytest.raises(ValueError, match="must be a string of ops, got None"):
        Preprocess(None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("decode|", "invalid syntax"),
        ("decode|resize(side)", "the arguments of 'resize(side)' must be plain values"),
        ("decode|resize(*[1, 2])", "must be plain values"),
        ("decode|resize(**{})", "must be plain values"),
        ("decode|__import__('os').remove('x')", "is not an op"),
        ("decode + resize(3)", "is not an op"),
    ],
)
def test_what_is_not_a_chain_of_ops_is_refused(text, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        Preprocess(text)


def test_an_op_name_is_registered_once():
    with pytest.raises(ValueError, match="'resize' is registered already"):
        register_op("resize")(lambda: None)


def test_unknown_resize_method_lists_the_methods():
    with pytest.raises(ValueError, match="must be one of area, bicubic, bilinear"):
        Preprocess("decode|resize(8, method='cubic')")


# Shapes, seeds, serving


def test_image_shape_is_static():
    assert Preprocess("decode|resize(8, 12)").image_shape == (8, 12, 3)
    assert Preprocess("decode(1)|resize_small(9)|central_crop((8, 4))").image_shape == (8, 4, 1)
    assert Preprocess("decode|inception_crop((6, 7))|flip_lr").image_shape == (6, 7, 3)
    assert Preprocess("decode|random_crop(5, padding=1)").image_shape == (5, 5, 3)


def test_open_image_shape_names_the_ops_that_fix_it():
    with pytest.raises(ValueError, match=r"no fixed size \(\(None, None, 3\)\). Add resize\("):
        _ = Preprocess("decode|value_range").image_shape


def test_each_random_op_draws_from_its_own_seed():
    assert Preprocess("decode|flip_lr").is_random
    assert not Preprocess("decode|resize(8)").is_random
    image = saved(tiny_records.pixels(0))
    once = {run("decode|flip_lr", image, (7, i)).tobytes() for i in range(20)}
    assert len(once) == 2  # flipped and not
    # Two flips with one seed would always cancel out.
    twice = {run("decode|flip_lr|flip_lr", image, (7, i)).tobytes() for i in range(20)}
    assert len(twice) == 2
    assert (run("decode|flip_lr", image, (7, 3)) == run("decode|flip_lr", image, (7, 3))).all()


def test_random_ops_cannot_serve():
    preprocess = Preprocess("decode|flip_lr|random_crop(4)")
    message = "has random ops (flip_lr, random_crop): evaluation and serving need"
    with pytest.raises(ValueError, match=re.escape(message)):
        preprocess.image_from_bytes(tiny_records.png(0))
    with pytest.raises(ValueError, match=r"flip_lr in .* is random: it needs a seed"):
        preprocess({"image": tf.constant(tiny_records.png(0))})


@pytest.mark.parametrize("dtype", [tf.uint8, tf.float32, tf.float64])
def test_pixels_are_served_like_bytes(dtype):
    preprocess = Preprocess("decode|resize_small(6)|central_crop(5)|value_range(-1, 1)")
    from_bytes = preprocess.image_from_bytes(tiny_records.png(1, 9, 12))
    from_pixels = preprocess.image_from_pixels(tf.cast(tiny_records.pixels(1, 9, 12), dtype))
    assert from_bytes.dtype == from_pixels.dtype == tf.float32
    np.testing.assert_array_equal(from_bytes, from_pixels)


# Ops


def test_decode_png_bmp_and_gif_exactly():
    image = tiny_records.pixels(0)
    np.testing.assert_array_equal(run("decode", saved(image)), image)
    np.testing.assert_array_equal(run("decode", saved(image, "BMP")), image)
    first_frame = np.asarray(Image.open(io.BytesIO(tiny_records.GIF)).convert("RGB"))
    np.testing.assert_array_equal(run("decode", tiny_records.GIF), first_frame)


def test_decode_jpeg_as_pillow_does():
    encoded = saved(tiny_records.pixels(0, 16, 24), "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(encoded))).astype(int)
    difference = np.abs(run("decode", encoded) - expected)
    assert difference.max() <= 4 and difference.mean() < 1  # TensorFlow's faster inverse DCT


def test_decode_channels():
    grey = tiny_records.pixels(0)[..., 0]
    np.testing.assert_array_equal(run("decode", saved(grey)), np.stack([grey] * 3, -1))
    np.testing.assert_array_equal(run("decode(1)", saved(grey)), grey[..., None])
    with pytest.raises(ValueError, match="channels must be 1, 3 or 4"):
        Preprocess("decode(2)")


def test_decode_takes_the_high_byte_of_16_bit_png():
    deep = np.array([[[255], [256], [65535]]], np.uint16)
    assert run("decode(1)", tf.io.encode_png(deep).numpy()).ravel().tolist() == [0, 1, 255]


@pytest.mark.parametrize("method", ["area", "bicubic", "bilinear", "lanczos3", "nearest"])
@pytest.mark.parametrize("side", [5, 8, 21, 60])  # of very large images too, of the same size too
def test_resize_rounds_what_tensorflow_makes_of_the_bytes(method, side):
    image = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    expected = tf.image.resize(image, [8, 8], method).numpy()
    expected = np.clip(np.round(expected), 0, 255).astype(np.uint8)
    function = get_op("resize").make(8, method=method)
    for spec in (tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec(image.shape, tf.uint8)):
        traced = tf.function(lambda x: function({"image": x})["image"], input_signature=[spec])
        np.testing.assert_array_equal(traced(image), expected)


def test_resize_bilinear_is_half_pixel_centred_and_rounds():
    column = np.array([[0], [100], [200]], np.uint8)
    image = np.repeat(np.repeat(column, 3, 1)[..., None], 3, 2)
    # Sample points (i + 1/2) * 3/5 - 1/2 = -0.2, 0.4, 1.0, 1.6, 2.2
    expected = [0, 40, 100, 160, 200]
    result = run("decode|resize(5)", saved(image))
    np.testing.assert_array_equal(result, np.tile(np.array(expected)[:, None, None], (1, 5, 3)))


@settings(max_examples=15, deadline=None)
@given(scale=st.integers(2, 4), height=st.integers(1, 4), width=st.integers(1, 4))
def test_area_shrinking_by_a_whole_factor_is_the_block_mean(scale, height, width):
    image = tiny_records.pixels(0, height * scale, width * scale)
    blocks = image.reshape(height, scale, width, scale, 3).mean((1, 3))
    result = run(f"decode|resize({height}, {width}, method='area')", saved(image))
    assert np.abs(result - blocks).max() <= 0.5 + 1e-4
    assert (result == np.round(result)).all()


def test_bicubic_antialias_agrees_with_pillow():
    image = tiny_records.pixels(0, 24, 30)
    expected = np.asarray(Image.fromarray(image).resize((10, 8), Image.Resampling.BICUBIC))
    result = run("decode|resize(8, 10, method='bicubic', antialias=True)", saved(image))
    assert np.abs(result - expected.astype(int)).max() <= 1


@settings(max_examples=15, deadline=None)
@given(height=st.integers(4, 20), width=st.integers(4, 20), size=st.integers(3, 12))
def test_resize_small_fixes_the_shorter_side_and_keeps_the_aspect(height, width, size):
    result = run(f"decode|resize_small({size})", tiny_records.png(0, height, width))
    scale = size / min(height, width)
    assert min(result.shape[:2]) == size
    assert (
        np.abs(np.array(result.shape[:2]) - np.array([height, width]) * scale).max() <= 0.5 + 1e-4
    )


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(4, 20),
    width=st.integers(4, 20),
    target=st.tuples(st.integers(3, 12), st.integers(3, 12)),
)
def test_resize_small_covers_a_height_and_a_width_and_keeps_the_aspect(height, width, target):
    result = run(f"decode|resize_small({target})", tiny_records.png(0, height, width))
    excess = np.array(result.shape[:2]) - target
    assert excess.min() == 0
    scale = max(target[0] / height, target[1] / width)
    assert np.abs(np.array(result.shape[:2]) - np.array([height, width]) * scale).max() <= 0.5001


def test_central_crop_is_the_middle():
    image = tiny_records.pixels(0, 9, 12)
    np.testing.assert_array_equal(run("decode|central_crop(5)", saved(image)), image[2:7, 3:8])
    np.testing.assert_array_equal(
        run("decode|central_crop((4, 12))", saved(image)), image[2:6, 0:12]
    )


def test_cropping_more_than_there_is_says_so():
    message = r"central_crop\(10\): the image is smaller than 10x10; resize it first"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        run("decode|central_crop(10)", tiny_records.png(0, 9, 12))


def test_random_crop_takes_every_window_of_the_padded_image():
    image = tiny_records.pixels(0, 4, 5)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    windows = {padded[y : y + 4, x : x + 5].astype(np.float32).tobytes(): (y, x)
               for y in range(3) for x in range(3)}  # fmt: skip
    drawn = [
        windows[run("decode|random_crop((4, 5), padding=1)", saved(image), (0, i)).tobytes()]
        for i in range(120)
    ]
    assert set(drawn) == set(windows.values())


def test_inception_crop_stays_in_its_area_and_aspect_range():
    # Each pixel tells its place, so the result's corners tell the cut-out part.
    y, x = np.meshgrid(np.arange(40), np.arange(60), indexing="ij")
    image = np.stack([y, x, x], -1).astype(np.uint8) * 4
    ops = "decode|inception_crop(64, area_min=20, area_max=50)"
    areas = []
    for i in range(40):
        part = run(ops, saved(image), (1, i))
        height, width = (np.ptp(part[..., c]) / 4 + 1 for c in (0, 1))
        areas.append(height * width / (40 * 60))
        assert 0.65 < width / height < 1.5
    assert 0.17 < min(areas) < 0.3 and 0.4 < max(areas) < 0.55


def gradient(height: int, width: int) -> np.ndarray:
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack([y, x, x], -1).astype(np.uint8) * 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_decoding_only_the_part_sees_the_same_part(kind):
    encoded = saved(gradient(40, 60), kind)
    for i in range(5):
        fused = run("decode_jpeg_and_inception_crop(16)", encoded, (1, i))
        # As the first op of its string, like the fused one: the second would draw other numbers.
        features = {"image": tf.io.decode_image(encoded), "seed": tf.constant([1, i], tf.int64)}
        whole = get_op("inception_crop").make(16)(features)["image"]
        difference = np.abs(fused - tf.cast(whole, tf.float32)).mean()
        assert difference == 0 if kind == "PNG" else difference < 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_decoding_only_the_middle_is_the_crop_of_official_vision(kind):
    image = gradient(40, 60)
    encoded = saved(image, kind)
    middle = run("decode_jpeg_and_central_crop(16)", encoded)
    if kind == "JPEG":
        reference = preprocess_ops.center_crop_image_v2(encoded, tf.shape(image))
        np.testing.assert_array_equal(middle, tf.round(tf.image.resize(reference, [16, 16])))
    part = image[2:37, 12:47]  # 35 = 0.875 * 40
    assert np.abs(middle - tf.round(tf.image.resize(part, [16, 16]))).mean() < 2
    high = run("decode_jpeg_and_central_crop((32, 16), ratio=1, method='nearest')", encoded)
    expected = tf.image.resize(image[:, 20:40].astype(np.float32), [32, 16], "nearest")
    assert np.abs(high - expected).mean() < (3 if kind == "JPEG" else 1e-6)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_middle_of_pixels_is_served_like_that_of_bytes(kind):
    encoded = saved(gradient(40, 60), kind)
    preprocess = Preprocess("decode_jpeg_and_central_crop(16)|value_range(-1, 1)")
    from_pixels = preprocess.image_from_pixels(tf.io.decode_image(encoded))
    difference = np.abs(from_pixels - preprocess.image_from_bytes(encoded))
    assert difference.mean() < 0.01 if kind == "JPEG" else difference.max() == 0


def test_the_middle_is_exact_where_it_can_be():
    image = np.random.default_rng(0).integers(0, 256, (256, 300, 3), np.uint8)
    whole = run("decode|central_crop(224)", saved(image, "PNG"))
    np.testing.assert_array_equal(
        run("decode_jpeg_and_central_crop(224)", saved(image, "PNG")), whole
    )


@given(low=st.floats(-1e3, 1e3, width=32), high=st.floats(-1e3, 1e3, width=32))
@settings(max_examples=60, deadline=None)
def test_batches_get_the_values_that_single_images_get(low, high):
    assume(low != high)
    preprocess = Preprocess(f"decode|resize(16)|value_range({low}, {high})")
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    images = np.repeat(levels[..., None], 3, axis=-1)
    assert preprocess.example_dtype == tf.uint8
    single = preprocess.image_from_pixels(images[0]).numpy()
    assert preprocess.on_batch(tf.constant(images)).numpy()[0].tobytes() == single.tobytes()


@pytest.mark.parametrize(
    ("ops", "dtype"),
    [
        ("decode|resize(8)|value_range(-1, 1)", tf.uint8),
        ("decode|resize(8)", tf.float32),
        ("decode|resize(8)|standardize", tf.float32),
        ("decode|resize(8)|value_range(0, 1)|value_range(0, 255)", tf.float32),
    ],
)
def test_only_scaling_bytes_is_left_to_batches(ops, dtype):
    preprocess, encoded = Preprocess(ops), saved(tiny_records.pixels(0))
    example = preprocess.on_example({"image": tf.constant(encoded)})["image"]
    assert example.dtype == preprocess.example_dtype == dtype
    finished = preprocess.on_batch(example[tf.newaxis])
    np.testing.assert_array_equal(finished[0], preprocess.image_from_bytes(encoded))


def test_inception_crop_refuses_impossible_ranges():
    with pytest.raises(ValueError, match="need 0 < area_min <= area_max <= 100"):
        Preprocess("decode|inception_crop(8, area_min=50, area_max=5)")


def test_flip_lr_flips_half_of_the_time():
    image = tiny_records.pixels(0)
    results = [run("decode|flip_lr", saved(image), (3, i)) for i in range(60)]
    flipped = sum((result == image[:, ::-1]).all() for result in results)
    kept = sum((result == image).all() for result in results)
    assert flipped + kept == 60 and 15 < flipped < 45


def test_value_range_and_standardize():
    image = tiny_records.pixels(0)
    unit = image / 255.0
    np.testing.assert_allclose(
        run("decode|value_range(-1, 1)", saved(image)), unit * 2 - 1, atol=1e-6
    )
    np.testing.assert_allclose(run("decode|value_range(0, 1)", saved(image)), unit, atol=1e-6)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (unit - mean) / std
    np.testing.assert_allclose(run("decode|standardize", saved(image)), expected, atol=1e-5)
    np.testing.assert_allclose(
        run("decode|standardize(0.5, 0.5)", saved(image)), unit * 2 - 1, atol=1e-6
    )


def test_draw_gives_the_numbers_of_stateless_uniform():
    for seed in ([0, 0], [3, 2**40], [-1, 5]):
        expected = tf.random.stateless_uniform([2, 7], tf.constant(seed, tf.int64))
        np.testing.assert_array_equal(draw([2, 7], tf.constant(seed, tf.int64)), expected)


@pytest.mark.parametrize("op", ["standardize", "value_range(-1, 1)", "value_range(0, 1)"])
def test_scaling_gives_the_same_bits_in_a_graph_that_tensorflow_optimizes(op):
    preprocess = Preprocess(f"decode|{op}")
    pixels = tf.tile(tf.range(256)[:, None, None], [1, 1, 3])
    served = tf.function(preprocess.image_from_pixels)(tf.cast(pixels, tf.uint8))
    expected = preprocess.image_from_pixels(tf.cast(pixels, tf.uint8))
    np.testing.assert_array_equal(served, expected)
