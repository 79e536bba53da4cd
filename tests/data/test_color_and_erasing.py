"""Colour jitter, 3-Augment, random erasing, and ops on labels."""

import functools

import draws
import numpy as np
import pytest
import tensorflow as tf
import tiny_records
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from vit_tf.data import Preprocess, color_ops, image_ops
from vit_tf.data.op_registry import get_op

IMAGE = tiny_records.pixels(0, 16, 20)
run_many = functools.partial(draws.run_many, image=IMAGE)


# Colour


def test_color_jitter_of_one_kind_is_pillows_with_uniform_factors():
    kinds = {"brightness": (0.5, 0, 0), "contrast": (0, 0.5, 0), "saturation": (0, 0, 0.5)}
    classes = {"brightness": "Brightness", "contrast": "Contrast", "saturation": "Color"}
    for kind, strengths in kinds.items():
        enhance = getattr(ImageEnhance, classes[kind])(Image.fromarray(IMAGE)).enhance
        table = {f: np.asarray(enhance(f)).astype(int) for f in np.linspace(0.5, 1.5, 401)}
        factors = []
        for result in run_many("color_jitter", *strengths, seeds=60):
            errors = {f: np.abs(result - theirs).mean() for f, theirs in table.items()}
            factors.append(min(errors, key=errors.get))
            assert errors[factors[-1]] < 0.3, kind
        assert min(factors) < 0.6 and max(factors) > 1.4, kind
        assert 0.85 < np.mean(factors) < 1.15, kind  # 4 standard deviations


def test_color_jitter_runs_in_all_orders():
    # Clipping makes the orders differ.
    image = np.array([[[200, 120, 40], [30, 90, 160]]], np.uint8)
    function = get_op("color_jitter").make(0.9)
    draw = color_ops.draw
    results = set()
    for seed in range(40):

        def fixed_factors(shape, seed):
            return tf.concat([draw([1], seed), [0.75, 0.2, 0.8]], axis=0)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(color_ops, "draw", fixed_factors)
            features = {"image": tf.constant(image), "seed": tf.constant([0, seed], tf.int64)}
            results.add(function(features)["image"].numpy().tobytes())
    assert len(results) == 6


def test_no_jitter_is_no_change():
    assert all((result == IMAGE).all() for result in run_many("color_jitter", 0, seeds=5))
    with pytest.raises(ValueError, match="must not be negative"):
        Preprocess("decode|color_jitter(-0.1)")


def test_three_augment_takes_each_of_its_three_a_third_of_the_time():
    grey = image_ops.grayscale(IMAGE).numpy()
    solarized = image_ops.solarize(IMAGE).numpy()
    results = run_many("three_augment", 0, seeds=300)
    grey_count = sum((result == grey).all() for result in results)
    solarized_count = sum((result == solarized).all() for result in results)
    blurred = [r for r in results if (r != grey).any() and (r != solarized).any()]
    for count in (grey_count, solarized_count, len(blurred)):
        assert abs(count - 100) < 4.5 * np.sqrt(300 * 2 / 9)
    # The radius varies from next to nothing to 2.
    contrasts = [blur.std() / IMAGE.std() for blur in blurred]
    assert max(contrasts) > 0.97 and min(contrasts) < 0.3


def test_three_augment_jitters_afterwards():
    grey = image_ops.grayscale(IMAGE).numpy()
    results = run_many("three_augment", 0.3, seeds=60)
    assert sum((result == grey).all() for result in results) == 0
    flat = [r for r in results if (r == r[..., :1]).all()]  # still grey, with another brightness
    assert len(flat) > 8 and len({r.tobytes() for r in flat}) == len(flat)


# Erasing


def erased_boxes(results: list[np.ndarray], image: np.ndarray) -> list[tuple[int, int, int, int]]:
    boxes = []
    for result in results:
        changed = np.argwhere((result != image).any(-1))
        if len(changed):
            (top, left), (bottom, right) = changed.min(0), changed.max(0)
            assert len(changed) == (bottom - top + 1) * (right - left + 1)
            boxes.append((top, left, bottom - top + 1, right - left + 1))
    return boxes


def test_random_erasing_fills_boxes_of_the_right_area_and_aspect_with_normal_noise():
    image = np.full((40, 60, 3), 9.0, np.float32)
    results = run_many("random_erasing", 0.25, image=image, seeds=600)
    boxes = erased_boxes(results, image)
    assert abs(len(boxes) - 150) < 4.5 * np.sqrt(600 * 0.25 * 0.75)
    tops, lefts, heights, widths = np.array(boxes).T
    area = heights * widths / (40 * 60)
    assert 0.015 < area.min() < 0.06 and 0.27 < area.max() < 0.36 and 0.13 < area.mean() < 0.21
    aspect = np.log(heights / widths)
    assert np.abs(aspect).max() < np.log(1 / 0.3) + 0.2
    assert aspect.min() < -0.8 and aspect.max() > 0.6  # tall ones must fit into 40 rows
    assert tops.min() <= 1 and lefts.min() <= 1
    assert (tops + heights).max() >= 39 and (lefts + widths).max() >= 59
    noise = np.concatenate([r[(r != image)].ravel() for r in results])
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03


def test_random_erasing_with_one_colour_or_zeros():
    image = np.full((16, 20, 3), 9.0, np.float32)
    for result in run_many("random_erasing", 1.0, "const", image=image, seeds=20):
        assert set(np.unique(result)) == {0.0, 9.0}
    colours = set()
    for result in run_many("random_erasing", 1.0, "rand", image=image, seeds=20):
        (colour,) = {tuple(pixel) for pixel in result.reshape(-1, 3)} - {(9.0, 9.0, 9.0)}
        colours.add(colour)
    assert len(colours) == 20


def test_random_erasing_leaves_an_image_in_which_no_box_fits():
    image = np.ones((1, 1, 3), np.float32)
    for result in run_many("random_erasing", 1.0, image=image, seeds=5):
        np.testing.assert_array_equal(result, image)


def test_random_erasing_belongs_after_standardize():
    assert Preprocess("decode|resize(8)|standardize|random_erasing").image_shape == (8, 8, 3)
    with pytest.raises(ValueError, match="works on a float image: put it after standardize"):
        _ = Preprocess("decode|random_erasing").image_shape
    with pytest.raises(ValueError, match="mode must be one of .*'pixel'.* got 'noise'"):
        Preprocess("decode|random_erasing(mode='noise')")


# Labels


@settings(max_examples=20, deadline=None)
@given(labels=st.lists(st.integers(0, 6), max_size=9))
def test_onehot_of_several_labels(labels):
    features = {"image": tf.zeros([]), "label": tf.constant(labels, tf.int32)}
    merged = get_op("onehot").make(7)(features)["label"].numpy()
    assert merged.tolist() == [float(i in labels) for i in range(7)]
    separate = get_op("onehot").make(7, multi=False)(features)["label"].numpy()
    assert separate.shape == (len(labels), 7) and separate.argmax(-1).tolist() == labels


def test_onehot_of_one_label_with_other_values_and_place():
    features = {"image": tf.zeros([]), "real": tf.constant(2)}
    result = get_op("onehot").make(3, key="real", key_result="target", on=0.9, off=0.05)(features)
    np.testing.assert_allclose(result["target"], [0.05, 0.05, 0.9])
    assert result["real"] == 2
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"a label of 'real' is outside \[0, 2"
    ):
        get_op("onehot").make(2, key="real")(features)


def test_keep_and_onehot_in_a_string_also_serve():
    preprocess = Preprocess("decode|resize(4)|onehot(3)|keep('image', 'label')")
    features = {"image": tf.constant(tiny_records.png(0)), "label": tf.constant(1), "name": "a"}
    result = preprocess(features)
    assert set(result) == {"image", "label"} and result["label"].numpy().tolist() == [0, 1, 0]
    assert preprocess.image_from_bytes(tiny_records.png(0)).shape == (4, 4, 3)
    with pytest.raises(ValueError, match="keep must name 'image'"):
        Preprocess("decode|keep('label')")
