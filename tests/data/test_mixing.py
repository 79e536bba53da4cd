"""Mixup and CutMix: the references' numbers, exact proportions, and the promised distributions."""

import json

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_tf.data.cutmix import cutmix_box, minmax_box, outside, outside_share
from vit_tf.data.mixing import Mixing, blend
from vit_tf.data.stateless_draws import (
    DIRICHLET_DRAWS,
    symmetric_beta,
    symmetric_dirichlet,
    uniforms,
)

BOTH = dict(mixup_alpha=0.8, cutmix_alpha=1.0)
MODES = ("batch", "pair", "elementwise")
KEY = (11, 12)


def mix(mixing, images, targets, mask=None, key=KEY, jit_compile=None):
    """Images and targets as NumPy arrays."""
    mask = np.ones(len(images)) if mask is None else mask
    run = tf.function(mixing, jit_compile=True) if jit_compile else mixing
    mixed = run(
        tf.constant(images),
        tf.constant(targets, tf.float32),
        tf.constant(mask, tf.float32),
        tf.constant(key, tf.int32),
    )
    return tuple(value.numpy() for value in mixed)


def own_and_partner(batch, size=4):
    """Images of 0 in the first half and of 1 in the second, with their classes."""
    values = np.arange(batch) // (batch // 2)
    images = np.broadcast_to(values[:, None, None, None], (batch, size, size, 1))
    return images.astype(np.float32), np.eye(2)[values]


def own_shares(targets):
    """What each example of `own_and_partner` kept of its own label."""
    half = len(targets) // 2
    return np.concatenate([targets[:half, 0], targets[half:, 1]])


# The reference's numbers


@pytest.fixture(scope="module")
def golden(shared):
    folder = shared / "golden" / "behaviour" / "mixup_cutmix"
    atol = json.loads((folder / "meta.json").read_text())["tolerance"]["atol"]
    return dict(np.load(folder / "io.npz")), atol


REVERSED = tf.reverse(tf.range(6), [0])


@pytest.mark.parametrize("lam", ["0.3", "0.75"])
@pytest.mark.parametrize("smoothing", ["0", "0.1"])
def test_mixed_images_and_targets_are_the_references(golden, lam, smoothing):
    stored, atol = golden
    targets = stored[f"targets_without_mixing/smoothing{smoothing}"]
    box = stored[f"cutmix/lam{lam}/box"]
    corrected = outside_share(tf.constant(box), (16, 16))
    pasted = outside(tf.constant(box), (16, 16))[..., None]
    assert abs(corrected - stored[f"cutmix/lam{lam}/lam_corrected"]) <= atol
    for kind, kept, share in (("mixup", float(lam), float(lam)), ("cutmix", pasted, corrected)):
        expected = stored[f"{kind}/lam{lam}/images"]
        images = blend(stored["images"], REVERSED, kept)
        np.testing.assert_allclose(images, expected, rtol=0, atol=atol)
        expected = stored[f"{kind}/lam{lam}/smoothing{smoothing}/targets"]
        np.testing.assert_allclose(blend(targets, REVERSED, share), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("case", ["mixup_elem", "mixup_pair"])
def test_shares_of_elements_and_pairs_are_the_references(golden, case):
    stored, atol = golden
    lam = stored[f"{case}/lam"]
    lam = lam if len(lam) == 6 else np.concatenate([lam, lam[::-1]])
    images = blend(stored["images"], REVERSED, lam[:, None, None, None])
    np.testing.assert_allclose(images, stored[f"{case}/images"], rtol=0, atol=atol)
    targets = blend(stored["targets_without_mixing/smoothing0.1"], REVERSED, lam[:, None])
    np.testing.assert_allclose(targets, stored[f"{case}/targets"], rtol=0, atol=atol)


@pytest.mark.parametrize(("rule", "columns"), [("old", slice(3, 7)), ("new", slice(8, 12))])
def test_boxes_are_the_references_under_either_rule(golden, rule, columns):
    rows = golden[0]["cutmix_boxes"]
    lam, center = rows[:, 0].astype(np.float32), rows[:, 1:3].astype(np.int32)
    boxes = cutmix_box(tf.constant(lam), tf.constant(center), (16, 16), rule)
    np.testing.assert_array_equal(boxes, rows[:, columns])
    if rule == "old":
        np.testing.assert_allclose(outside_share(boxes, (16, 16)), rows[:, 7], rtol=0, atol=1e-6)


# Proportions


@settings(max_examples=60, deadline=None)
@given(
    half=st.integers(1, 4),
    mode=st.sampled_from(MODES),
    rule=st.sampled_from(["old", "new"]),
    smoothing=st.sampled_from([0.0, 0.1]),
    size=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    key=st.tuples(st.integers(0, 99), st.integers(0, 99)),
    minmax=st.sampled_from([None, (0.0, 1.0), (0.2, 0.8)]),
)
def test_labels_are_conserved_and_mixed_as_the_pixels_are(
    half, mode, rule, smoothing, size, key, minmax
):
    batch = 2 * half
    hot = np.eye(batch)
    targets = hot * (1 - smoothing) + smoothing / batch
    images = np.broadcast_to(hot[:, None, None, :], (batch, *size, batch)).astype(np.float32)
    mixing = Mixing(**BOTH, mode=mode, cutmix_box_rule=rule, cutmix_minmax=minmax)
    mixed, soft = mix(mixing, images, targets, key=key)
    assert mixed.shape == images.shape and mixed.dtype == soft.dtype == np.float32
    np.testing.assert_allclose(soft.sum(axis=1), 1.0, atol=1e-6)
    assert soft.min() >= 0.0 and soft.max() <= 1.0
    # Channel c tells how much a pixel has of image c: over the image that is the label's share.
    shares = mixed.mean(axis=(1, 2), dtype=np.float64)
    np.testing.assert_allclose(shares * (1 - smoothing) + smoothing / batch, soft, atol=1e-6)
    if mode != "elementwise":  # both of a pair give what they take
        np.testing.assert_allclose(soft.sum(axis=0), 1.0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    lam=st.floats(0, 1, width=32),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    place=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
    rule=st.sampled_from(["old", "new"]),
)
def test_a_box_is_inside_the_image_and_lam_is_the_exact_share_outside(lam, size, place, rule):
    center = [int(p * s) for p, s in zip(place, size, strict=True)]
    box = cutmix_box(tf.constant(lam), tf.constant(center), size, rule)
    top, bottom, left, right = box.numpy()
    assert 0 <= top <= bottom <= size[0] and 0 <= left <= right <= size[1]
    pasted = outside(box, size).numpy() == 0
    assert pasted.sum() == (bottom - top) * (right - left)
    assert float(outside_share(box, size)) == pytest.approx(1 - pasted.mean(), abs=1e-6)
    assert pasted.mean() <= 1 - lam + 1e-6 or rule == "new"


def test_without_correction_labels_keep_the_share_that_was_drawn():
    images, targets = own_and_partner(64, size=8)
    corrected = own_shares(mix(Mixing(cutmix_alpha=1.0, mode="elementwise"), images, targets)[1])
    mixing = Mixing(cutmix_alpha=1.0, mode="elementwise", correct_lam=False)
    mixed, soft = mix(mixing, images, targets)
    drawn = own_shares(soft)
    kept = 1 - np.abs(mixed - images).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(kept, corrected, atol=1e-6)
    assert (drawn <= corrected + 1e-6).all() and (drawn < corrected - 0.01).any()


def test_all_of_a_batch_or_pair_share_a_draw_and_elements_do_not():
    images, targets = own_and_partner(64)
    shares = {
        mode: own_shares(mix(Mixing(mixup_alpha=0.8, mode=mode), images, targets)[1])
        for mode in MODES
    }
    assert np.ptp(shares["batch"]) < 1e-6
    np.testing.assert_allclose(shares["pair"], shares["pair"][::-1], atol=1e-6)
    assert len(np.unique(shares["pair"][:32].round(5))) > 20
    assert np.abs(shares["elementwise"] - shares["elementwise"][::-1]).max() > 0.1


def test_big_vision_mixes_with_the_image_before_and_keeps_the_larger_share():
    images = np.broadcast_to(np.arange(5.0)[:, None, None, None], (5, 2, 2, 1)).astype(np.float32)
    for step in range(10):
        mixing = Mixing(mixup_alpha=0.5, style="big_vision")
        mixed, soft = mix(mixing, images, np.eye(5), key=(0, step))
        lam = soft[0, 0]
        assert 0.5 <= lam <= 1.0
        expected = lam * np.eye(5) + (1 - lam) * np.roll(np.eye(5), 1, axis=0)
        np.testing.assert_allclose(soft, expected, atol=1e-6)
        expected = lam * images + (1 - lam) * np.roll(images, 1, axis=0)
        np.testing.assert_allclose(mixed, expected, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(5, 7),
    num_mixed=st.integers(2, 5),
    alpha=st.sampled_from([1e-3, 0.2, 1.0, 50.0]),
    probability=st.sampled_from([0.5, 1.0]),
    key=st.tuples(st.integers(0, 99), st.integers(0, 99)),
)
def test_several_images_are_mixed_with_falling_shares_of_those_before(
    batch, num_mixed, alpha, probability, key
):
    mixing = Mixing(alpha, style="big_vision", num_mixed=num_mixed, probability=probability)
    images = np.broadcast_to(np.eye(batch)[:, None, None, :], (batch, 3, 2, batch))
    mixed, soft = mix(mixing, images.astype(np.float32), np.eye(batch), key=key)
    # Row i of the targets tells what image i has of each: the first row rolled by i.
    shares = soft[0, (-np.arange(batch)) % batch]
    assert shares.sum() == pytest.approx(1.0, abs=1e-6) and (shares[num_mixed:] == 0).all()
    assert (np.diff(shares) <= 0).all() and shares[0] >= 1 / num_mixed - 1e-6
    expected = sum(share * np.roll(np.eye(batch), i, axis=0) for i, share in enumerate(shares))
    np.testing.assert_allclose(soft, expected, atol=1e-6)
    np.testing.assert_allclose(soft.sum(axis=0), 1.0, atol=1e-6)
    np.testing.assert_array_equal(mixed, np.broadcast_to(soft[:, None, None, :], mixed.shape))


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(4, 30), st.integers(4, 30)),
    minmax=st.sampled_from([(0.0, 1.0), (0.2, 0.8), (0.5, 1.0), (0.0, 0.3)]),
    draws=st.tuples(*[st.integers(0, 2**23 - 1)] * 4),
)
def test_a_minmax_box_is_what_timm_cuts_out_of_the_same_draws(size, minmax, draws):
    draws = (np.array(draws, np.float32) + np.float32(0.5)) / np.float32(2**23)
    box = minmax_box(tf.constant(draws), size, minmax).numpy()
    expected = []
    for side, cut, place in zip(size, draws[:2], draws[2:], strict=True):
        least, limit = int(side * minmax[0]), int(side * minmax[1])
        cut = least + int(cut * (limit - least))  # numpy.random.randint(least, limit)
        low = int(place * (side - cut))  # numpy.random.randint(0, side - cut)
        expected += [low, low + cut]
    np.testing.assert_array_equal(box, expected)
    assert (box[[1, 3]] <= size).all() and (box[[0, 2]] >= 0).all()


# Masked examples


@pytest.mark.parametrize("mode", MODES)
def test_masked_examples_leave_no_trace_in_others(mode):
    images, _ = own_and_partner(8)
    targets = np.eye(8)
    mask = np.array([1, 0, 1, 1, 1, 1, 1, 0], np.float32)
    images[mask == 0] = np.nan
    mixed, soft = mix(Mixing(**BOTH, mode=mode), images, targets, mask)
    np.testing.assert_array_equal(mixed[[0, 6]], images[[0, 6]])  # partners of 7 and 1
    np.testing.assert_array_equal(soft[[0, 6]], targets[[0, 6]])
    others = [2, 3, 4, 5]
    whole_mixed, whole_soft = mix(Mixing(**BOTH, mode=mode), np.nan_to_num(images), targets)
    np.testing.assert_array_equal(mixed[others], whole_mixed[others])
    np.testing.assert_array_equal(soft[others], whole_soft[others])


def test_the_share_of_a_masked_example_among_several_stays_with_the_image():
    images, mask = np.eye(6)[:, None, None, :] * np.ones((6, 2, 2, 1)), np.ones(6)
    mixing = Mixing(50.0, style="big_vision", num_mixed=3)
    whole = mix(mixing, images, np.eye(6))[1]
    mask[4], images[4] = 0, np.nan
    mixed, soft = mix(mixing, images, np.eye(6), mask)
    expected = whole.copy()
    for taker in (5, 0):  # who come after 4
        expected[taker, taker] += expected[taker, 4]
        expected[taker, 4] = 0
    others = mask > 0
    np.testing.assert_allclose(soft[others], expected[others], atol=1e-6)
    np.testing.assert_allclose(mixed[others].mean(axis=(1, 2)), expected[others], atol=1e-6)


# What is drawn


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.8, 1.0, 3.0])
def test_lam_is_beta_distributed(alpha):
    rng = np.random.default_rng(0)
    u, v = (rng.uniform(1e-7, 1 - 1e-7, 20_000).astype(np.float32) for _ in range(2))
    lam = symmetric_beta(tf.constant(u), tf.constant(v), alpha).numpy()
    assert lam.min() >= 0.0 and lam.max() <= 1.0
    # Inside only: float32 has no number between 1 - 6e-8 and 1, where a small alpha has much mass.
    for x in np.linspace(0.01, 0.99, 15):
        expected = scipy.stats.beta(alpha, alpha).cdf(x)
        deviation = np.sqrt(expected * (1 - expected) / len(lam))
        assert abs((lam <= x).mean() - expected) < 4 * deviation


@pytest.mark.parametrize(("alpha", "count"), [(0.1, 3), (0.5, 2), (1.0, 3), (3.0, 4)])
def test_shares_are_dirichlet_distributed(alpha, count):
    draws = uniforms((DIRICHLET_DRAWS, 20_000, count), tf.constant(KEY))
    shares = symmetric_dirichlet(draws, alpha).numpy()
    np.testing.assert_allclose(shares.sum(axis=-1), 1.0, atol=1e-6)
    marginal = scipy.stats.beta(alpha, (count - 1) * alpha)
    assert shares.var(axis=0).mean() == pytest.approx(marginal.var(), rel=0.025)
    for place in range(count):
        for x in np.linspace(0.01, 0.99, 9):
            expected = marginal.cdf(x)
            deviation = np.sqrt(expected * (1 - expected) / len(shares))
            assert abs((shares[:, place] <= x).mean() - expected) < 4.5 * deviation + 1e-4
    # Any two of them are those of a Beta among themselves, independent of what they have together.
    together = shares[:, 0] + shares[:, 1]
    if count > 2:
        first = shares[:, 0] / np.maximum(together, 1e-30)
        seen = together > 1e-3
        assert abs(np.corrcoef(first[seen], together[seen])[0, 1]) < 0.05


def test_sides_and_places_of_minmax_boxes_are_drawn_uniformly():
    images, targets = own_and_partner(8000, size=10)
    mixing = Mixing(cutmix_minmax=(0.2, 0.8), probability=0.5, mode="elementwise")
    mixed, soft = mix(mixing, images, targets)
    pasted = (mixed != images)[..., 0]
    happened = pasted.any(axis=(1, 2))
    assert happened.mean() == pytest.approx(0.5, abs=0.025)
    np.testing.assert_allclose(own_shares(soft), 1 - pasted.mean(axis=(1, 2)), atol=1e-6)
    for lines in (pasted[happened].any(axis=2), pasted[happened].any(axis=1)):
        sides = lines.sum(axis=1)
        counts = np.bincount(sides, minlength=11)
        assert counts[2:8].sum() == len(sides)  # 8 pixels are excluded, as by timm's randint
        assert scipy.stats.chisquare(counts[2:8]).pvalue > 1e-4
        places = np.bincount(lines[sides == 4].argmax(axis=1), minlength=6)
        assert scipy.stats.chisquare(places).pvalue > 1e-4  # rows 0 to 5


def test_mixup_and_cutmix_are_drawn_as_often_as_asked_each_with_its_own_alpha():
    images, targets = own_and_partner(8000, size=8)
    mixing = Mixing(
        mixup_alpha=0.8,
        cutmix_alpha=1.0,
        probability=0.7,
        switch_probability=0.3,
        mode="elementwise",
        correct_lam=False,
    )
    mixed, soft = mix(mixing, images, targets)
    lam = own_shares(soft)
    happened = lam < 1.0
    assert happened.mean() == pytest.approx(0.7, abs=0.02)
    np.testing.assert_array_equal(mixed[~happened], images[~happened])
    blended = ((mixed > 0) & (mixed < 1)).any(axis=(1, 2, 3))
    assert blended[happened].mean() == pytest.approx(0.7, abs=0.02)
    for kind, alpha in ((happened & blended, 0.8), (happened & ~blended, 1.0)):
        assert scipy.stats.kstest(lam[kind], scipy.stats.beta(alpha, alpha).cdf).pvalue > 1e-3


def test_boxes_are_centered_anywhere():
    images, targets = own_and_partner(8000, size=6)
    mixed, _ = mix(Mixing(cutmix_alpha=1.0, mode="elementwise"), images, targets)
    pasted = np.abs(mixed - images)[..., 0].mean(axis=0)  # how often each pixel is
    np.testing.assert_allclose(pasted[:, :-1], pasted.T[:, :-1], atol=0.03)
    assert pasted.min() > 0.05 and pasted.max() < 0.5


@pytest.mark.parametrize(
    "mixing",
    [
        *(Mixing(**BOTH, mode=mode) for mode in MODES),
        Mixing(0.8, cutmix_minmax=(0.1, 0.9), mode="elementwise"),
        Mixing(0.2, style="big_vision", num_mixed=3, probability=0.9),
    ],
    ids=str,
)
def test_a_key_draws_the_same_compiled_or_not_and_another_one_something_else(mixing):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, 9, 7, 3)).astype(np.float32)
    eager = mix(mixing, images, np.eye(8))
    for one, other in zip(eager, mix(mixing, images, np.eye(8), jit_compile=True), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    for one, other in zip(eager, mix(mixing, images, np.eye(8)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (mix(mixing, images, np.eye(8), key=(11, 13))[0] != eager[0]).any()


def test_uint8_images_become_float32_of_the_same_range():
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3)).astype(np.uint8)
    mixing = Mixing(mixup_alpha=0.8)
    expected = mix(mixing, images.astype(np.float32), np.eye(4))[0]
    np.testing.assert_array_equal(mix(mixing, images, np.eye(4))[0], expected)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "mixes nothing; set one of them, or leave Mixing out"),
        ({"mixup_alpha": -1.0}, "mixup_alpha must be at least 0 and finite; given -1"),
        ({"cutmix_alpha": float("nan")}, "cutmix_alpha must be at least 0 and finite; given nan"),
        ({**BOTH, "probability": 1.5}, r"Mixing.probability must lie in \[0, 1\]; given 1.5"),
        ({**BOTH, "switch_probability": -0.1}, r"switch_probability must lie in \[0, 1\]"),
        ({**BOTH, "mode": "elementwize"}, "given 'elementwize'. Did you mean 'elementwise'?"),
        ({**BOTH, "style": "timn"}, "'timm' or 'big_vision'; given 'timn'. Did you mean 'timm'?"),
        ({**BOTH, "cutmix_box_rule": "newer"}, "'old' or 'new'; given 'newer'"),
        ({**BOTH, "style": "big_vision"}, "mixup with one λ a batch; given cutmix_alpha = 1.0"),
        ({"cutmix_minmax": (0.8, 0.2)}, r"two rising shares .* given \(0.8, 0.2\)"),
        ({"cutmix_minmax": (0.2,)}, r"two rising shares .* given \(0.2,\)"),
        ({"cutmix_minmax": (0, 1), "cutmix_alpha": 0.5}, "cutmix_alpha = 0.5 would have no effect"),
        ({"cutmix_minmax": (0, 1), "style": "big_vision"}, r"cutmix_minmax = \(0, 1\)"),
        ({"mixup_alpha": 1.0, "num_mixed": 3}, "more in the style 'big_vision'; given 3 in the st"),
        ({"mixup_alpha": 1.0, "num_mixed": 1, "style": "big_vision"}, "must be 2, or more .* 1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Mixing(**arguments)


def test_an_image_too_small_for_the_minmax_of_its_boxes_is_refused():
    mixing = Mixing(cutmix_minmax=(0.3, 0.4))
    with pytest.raises(ValueError, match="of 2 pixels, no whole number lies between these shares"):
        mix(mixing, np.zeros((2, 2, 9, 1)), np.eye(2))


@pytest.mark.parametrize(
    ("mixing", "text"),
    [
        (Mixing(**BOTH), "mixup 0.8, CutMix 1 (old box rule), CutMix in 50%, probability 1, by b"),
        (Mixing(cutmix_minmax=(0.2, 0.8)), "CutMix with sides of 0.2 to 0.8, probability 1, by b"),
        (Mixing(1, style="big_vision", num_mixed=3), "mixup 1 of 3 images, probability 1, by bat"),
    ],
)
def test_mixing_says_what_it_does(mixing, text):
    assert str(mixing).startswith(text)


@pytest.mark.parametrize(
    ("style", "batch", "message"),
    [
        ("timm", 5, "an even number of images for each replica; the batch has 5"),
        ("big_vision", 1, "at least 2 images for each replica; the batch has 1"),
    ],
)
def test_a_batch_in_which_somebody_has_no_partner_is_refused(style, batch, message):
    with pytest.raises(ValueError, match=message):
        mix(Mixing(mixup_alpha=1.0, style=style), np.zeros((batch, 2, 2, 1)), np.eye(batch))
