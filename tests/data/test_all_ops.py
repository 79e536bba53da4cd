"""What holds for every registered op: a table of all of them, and claims that go through it."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
import tiny_records
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.python.framework import op_def_registry

from vit_tf.data import Preprocess
from vit_tf.data.op_registry import get_op, list_ops

ANY = ("uint8", "float32")
ENCODED = {"png": tf.io.encode_png, "jpeg": tf.io.encode_jpeg}
OTHERS = {"label": [2], "name": b"ant"}


def same_size(height: int, width: int) -> tuple[int, int]:
    return height, width


def short_side_6(height: int, width: int) -> tuple[int, int]:
    scale = 6 / min(height, width)
    return round(height * scale), round(width * scale)


@dataclasses.dataclass(frozen=True)
class Example:
    """A call of an op, what it takes, and what it must give.

    Attributes:
      op: its name.
      args: what it is made with.
      takes: kinds of images: "png", "jpeg", or a dtype with values in [0, 255].
      gives: dtype of the result; None: that of what it takes.
      size: of the result, of the size of what it takes.
      bounds: of the result's values; None: any finite ones.
      others: what becomes of `OTHERS`.
    """

    op: str
    args: tuple = ()
    takes: tuple[str, ...] = ANY
    gives: str | None = None
    size: Callable[[int, int], tuple[int, int]] = same_size
    bounds: tuple[float, float] | None = (0, 255)
    others: dict = dataclasses.field(default_factory=lambda: OTHERS)

    def __str__(self) -> str:
        return self.op


def fixed_5_by_4(*_) -> tuple[int, int]:
    return 5, 4


EXAMPLES = [
    # Decoding
    Example("decode", takes=("png", "jpeg"), gives="uint8"),
    Example("decode_jpeg_and_inception_crop", ((5, 4),), ("png", "jpeg"), "uint8", fixed_5_by_4),
    Example("decode_jpeg_and_central_crop", ((5, 4),), ("png", "jpeg"), "uint8", fixed_5_by_4),
    # Geometry
    Example("resize", (5, 7), size=lambda *_: (5, 7)),
    Example("resize_small", (6,), size=short_side_6),
    Example("crop_ratio", ((5, 4), 0.9), size=lambda *_: (5, 4), bounds=None),  # bicubic
    Example("central_crop", ((5, 6),), size=lambda *_: (5, 6)),
    Example("random_crop", (7, 2), size=lambda *_: (7, 7)),
    Example("inception_crop", ((5, 4),), size=lambda *_: (5, 4)),
    Example("random_resized_crop", ((5, 4),), size=lambda *_: (5, 4), bounds=None),  # bicubic
    Example("flip_lr"),
    # Colour and policies
    Example("randaug", (2, 10), ("uint8",)),
    Example("augreg", ("light1",), ("uint8",)),
    Example("autoaug", (), ("uint8",)),
    Example("timm_randaug", (), ("uint8",)),
    Example("augmix", ("augmix-m10-w2",), ("uint8",)),
    Example("color_jitter", (), ("uint8",)),
    Example("three_augment", (), ("uint8",)),
    # Values
    Example("value_range", (-1, 1), ANY, "float32", bounds=(-1, 1)),
    Example("standardize", (), ANY, "float32", bounds=(-2.2, 2.7)),
    Example("random_erasing", (0.9,), ("float32",), bounds=None),
    # Features
    Example("keep", ("image", "label"), others={"label": OTHERS["label"]}),
    Example("onehot", (3,), others=OTHERS | {"label": [0, 0, 1]}),
]
CASES = [
    pytest.param(example, kind, id=f"{example.op}-{kind}")
    for example in EXAMPLES
    for kind in example.takes
]
RANDOM_CASES = [case for case in CASES if get_op(case.values[0].op).random]
FIXED_CASES = [
    case
    for case in CASES
    if case.values[1] not in ENCODED and case.values[0].size is not short_side_6
]


@functools.cache
def traced(op: str, args: tuple, kind: str):
    """The op traced for images of any size; only a random one gets a seed."""
    encoded = kind in ENCODED
    image = tf.TensorSpec([] if encoded else [None, None, 3], tf.string if encoded else kind)
    spec = {"image": image, "label": tf.TensorSpec([1], tf.int64)}
    spec["name"] = tf.TensorSpec([], tf.string)
    if get_op(op).random:
        spec["seed"] = tf.TensorSpec([2], tf.int64)
    function = tf.function(get_op(op).make(*args), autograph=False)
    return function.get_concrete_function(spec)


def run(example: Example, kind: str, size: tuple[int, int], seed: int = 0) -> dict:
    pixels = tiny_records.pixels(0, *size)
    image = ENCODED[kind](pixels) if kind in ENCODED else tf.cast(pixels, kind)
    features = {"image": image, "label": tf.constant(OTHERS["label"], tf.int64)}
    features["name"] = tf.constant(OTHERS["name"])
    if get_op(example.op).random:
        features["seed"] = tf.constant([1, seed], tf.int64)
    result = traced(example.op, example.args, kind)(features)
    return {key: value.numpy() for key, value in result.items() if key != "seed"}


def test_every_op_has_an_example_here():
    ours = {name for name in list_ops() if get_op(name).factory.__module__.startswith("vit_tf.")}
    without = ours - {example.op for example in EXAMPLES}
    assert not without, f"add an Example of {', '.join(sorted(without))} to EXAMPLES"


@pytest.mark.parametrize(("example", "kind"), CASES)
def test_ops_have_no_graph_ops_with_effects(example, kind):
    # Deterministic TensorFlow would prepare one example at a time, see test_input.py; and what is
    # random would not follow from the seed.
    graph = traced(example.op, example.args, kind).graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    names = {node.op for node in nodes} - {f.signature.name for f in graph.library.function}
    effects = {name for name in names if op_def_registry.get(name).is_stateful}
    assert effects <= {"Placeholder"}


@pytest.mark.parametrize(("example", "kind"), CASES)
@settings(max_examples=10, deadline=None)
@given(
    size=st.tuples(st.integers(6, 18), st.integers(6, 18)),
    seed=st.integers(0, 2**40),
)
def test_ops_give_the_size_dtype_and_range_that_they_promise(example, kind, size, seed):
    result = run(example, kind, size, seed)
    image = result.pop("image")
    assert image.shape == (*example.size(*size), 3)
    assert image.dtype == (example.gives or kind)
    low, high = example.bounds or (-np.inf, np.inf)
    assert np.isfinite(image).all() and low - 1e-3 <= image.min() and image.max() <= high + 1e-3
    assert set(result) == set(example.others)
    for key, value in example.others.items():
        np.testing.assert_array_equal(result[key], value)
    np.testing.assert_array_equal(run(example, kind, size, seed)["image"], image)


@pytest.mark.parametrize(("example", "kind"), RANDOM_CASES)
def test_random_ops_give_something_else_for_other_seeds(example, kind):
    results = {run(example, kind, (12, 15), seed)["image"].tobytes() for seed in range(20)}
    assert len(results) > (1 if example.op == "flip_lr" else 5)


@pytest.mark.parametrize(("example", "kind"), FIXED_CASES)
def test_a_fixed_size_stays_fixed(example, kind):
    function = get_op(example.op).make(*example.args)

    def augment(image: tf.Tensor) -> tf.Tensor:
        others = {"seed": tf.zeros([2], tf.int64), "label": tf.zeros([1], tf.int64)}
        return function({"image": image, **others})["image"]

    traced = tf.function(augment, autograph=False).get_concrete_function(
        tf.TensorSpec([12, 9, 3], kind)
    )
    assert traced.output_shapes == (*example.size(12, 9), 3)


@pytest.mark.parametrize("example", [x for x in EXAMPLES if x.takes == ("uint8",)], ids=str)
def test_float_and_grey_images_are_refused_with_the_remedy(example):
    call = f"{example.op}({', '.join(map(repr, example.args))})"
    message = "works on uint8 images with 3 channels, got float32 with 3: put it before value_range"
    with pytest.raises(ValueError, match=message):
        _ = Preprocess(f"decode|value_range|{call}").image_shape
    with pytest.raises(ValueError, match="got uint8 with 1: .* and decode\\(3\\)"):
        _ = Preprocess(f"decode(1)|{call}").image_shape
