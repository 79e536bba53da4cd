"""AugMix: the same draws give what Pillow and timm's formulas give; draws are as promised."""

import re

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from vit_tf.data.augmix import AUGMIX_OPS, AugMix, draw_all
from vit_tf.data.op_registry import get_op

FILL = (124, 116, 104)
BICUBIC = Image.Resampling.BICUBIC


def smooth_image(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(40, 216, (5, 6, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), BICUBIC))


def timm_op(image: Image.Image, name: str, magnitude: float, sign: int) -> Image.Image:
    """An op with the argument that timm derives from the magnitude, by Pillow alone."""
    level = magnitude / 10

    def affine(*matrix: float) -> Image.Image:
        options = {"resample": BICUBIC, "fillcolor": FILL}
        return image.transform(image.size, Image.Transform.AFFINE, matrix, **options)

    if name in ("Color", "Contrast", "Brightness", "Sharpness"):
        return getattr(ImageEnhance, name)(image).enhance(max(0.1, 1 + sign * level * 0.9))
    ops = {
        "AutoContrast": lambda: ImageOps.autocontrast(image),
        "Equalize": lambda: ImageOps.equalize(image),
        "Rotate": lambda: image.rotate(sign * level * 30, resample=BICUBIC, fillcolor=FILL),
        "Posterize": lambda: ImageOps.posterize(image, 4 - int(level * 4)),
        "Solarize": lambda: ImageOps.solarize(image, 256 - min(256, int(level * 256))),
        "ShearX": lambda: affine(1, sign * level * 0.3, 0, 0, 1, 0),
        "ShearY": lambda: affine(1, 0, 0, sign * level * 0.3, 1, 0),
        "TranslateX": lambda: affine(1, 0, sign * level * 0.3 * image.size[0], 0, 1, 0),
        "TranslateY": lambda: affine(1, 0, 0, 0, 1, sign * level * 0.3 * image.size[1]),
    }
    return ops[name]()


def timm_augmix(image: np.ndarray, draws, blended: bool) -> np.ndarray:
    original = Image.fromarray(image)
    chains = []
    for chain, depth in enumerate(draws.depths):
        augmented = original
        for place in range(depth):
            name = AUGMIX_OPS[int(draws.choices[chain, place] * len(AUGMIX_OPS))]
            sign = -1 if draws.sides[chain, place] < 0.5 else 1
            augmented = timm_op(augmented, name, draws.magnitudes[chain, place], sign)
        chains.append(augmented)
    if not blended:
        pixels = [np.asarray(chain, np.float32) for chain in chains]
        mix = sum(share * chain for share, chain in zip(draws.shares, pixels, strict=True))
        mix = Image.fromarray(np.clip(mix, 0, 255).astype(np.uint8))
        return np.asarray(Image.blend(original, mix, float(draws.mixed)))
    left, shares = 1.0, []
    for share in draws.shares[::-1] * draws.mixed:
        shares.insert(0, share / left)
        left *= 1 - shares[0]
    for share, chain in zip(shares, chains, strict=True):
        original = Image.blend(original, chain, float(share))
    return np.asarray(original)


@pytest.mark.parametrize("config", ["augmix-m10-w2", "augmix-m5-w3-d2-b1-mstd0.5"])
def test_the_same_draws_give_timms_image(config):
    image, settings = smooth_image(26, 33), AugMix.parse(config)
    function = get_op("augmix").make(config)

    @tf.function(autograph=False)
    def run(seed):
        return function({"image": tf.constant(image), "seed": seed})["image"], draw_all(
            settings, seed
        )

    seen = set()
    for number in range(40):
        result, draws = run(tf.constant([3, number], tf.int64))
        draws = type(draws)(*(value.numpy() for value in draws))
        expected = timm_augmix(image, draws, settings.blended)
        wrong = np.abs(result.numpy().astype(int) - expected)
        # What single ops round differently (test_image_ops.py), Equalize may make larger.
        assert (wrong > 2).mean() < 0.02 and wrong.mean() < 0.5, (number, draws)
        for chain, depth in enumerate(draws.depths):
            seen |= set((draws.choices[chain, :depth] * len(AUGMIX_OPS)).astype(int))
    assert seen == set(range(len(AUGMIX_OPS)))


@pytest.fixture(scope="module")
def drawn():
    """Draws for 3000 seeds at timm's defaults."""
    settings = AugMix.parse("augmix")
    dataset = tf.data.Dataset.range(3000).map(lambda i: draw_all(settings, tf.stack([7, i])))
    return next(dataset.batch(3000).as_numpy_iterator())


def test_ops_directions_and_depths_are_drawn_uniformly(drawn):
    for values, count in (
        (drawn.choices * len(AUGMIX_OPS), len(AUGMIX_OPS)),
        (drawn.sides * 2, 2),
        (drawn.depths - 1, 3),
    ):
        counts = np.bincount(values.astype(int).ravel(), minlength=count)
        assert len(counts) == count and scipy.stats.chisquare(counts).pvalue > 1e-4


def test_magnitudes_are_uniform_below_m_and_shares_are_dirichlet(drawn):
    uniform = scipy.stats.uniform(0, 3).cdf
    assert scipy.stats.kstest(drawn.magnitudes.ravel(), uniform).pvalue > 1e-4
    np.testing.assert_allclose(drawn.shares.sum(axis=1), 1.0, atol=1e-6)
    assert scipy.stats.kstest(drawn.shares[:, 1], scipy.stats.beta(1, 2).cdf).pvalue > 1e-4
    assert scipy.stats.kstest(drawn.mixed, scipy.stats.uniform().cdf).pvalue > 1e-4
    together = np.stack([drawn.mixed, drawn.shares[:, 0], drawn.choices[:, 0, 0]])
    assert np.abs(np.corrcoef(together) - np.eye(3)).max() < 0.08


def test_configuration_strings():
    assert AugMix.parse("augmix") == AugMix(3.0, 3, 0, 1.0, False, float("inf"))
    assert AugMix.parse("augmix-m5-w4-d2") == AugMix(5.0, 4, 2)
    assert AugMix.parse("augmix-b1-a0.5-mstd0") == AugMix(3.0, 3, 0, 0.5, True, 0.0)


@pytest.mark.parametrize("config", ["rand-m3", "augmix-n2", "augmix-m3-m4", "augmix-w", "m3"])
def test_bad_configuration_strings_are_shown_the_form(config):
    with pytest.raises(ValueError, match=re.escape(f"like 'augmix-m5-w4-d2'; got {config!r}")):
        AugMix.parse(config)


@pytest.mark.parametrize("config", ["augmix-w0", "augmix-a0"])
def test_nothing_to_mix_is_refused(config):
    with pytest.raises(ValueError, match=f"-w and an alpha -a above 0; got {config!r}"):
        AugMix.parse(config)
