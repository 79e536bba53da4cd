"""AugMix (Hendrycks et al. 2019) as timm has it, written as `augmix-m5-w4-d2`."""

import dataclasses
from typing import NamedTuple

import tensorflow as tf

from vit_tf.data.augment_ops import ENHANCING
from vit_tf.data.image_ops import on_rgb_and_seed
from vit_tf.data.op_registry import FeaturesFn, draw, register_op
from vit_tf.data.stateless_draws import (
    DIRICHLET_DRAWS,
    symmetric_beta,
    symmetric_dirichlet,
    uniforms,
)
from vit_tf.data.timm_policy import TimmOps, draw_magnitudes, parse_config

AUGMIX_OPS = (
    "AutoContrast",
    *ENHANCING,  # not in the paper
    "Equalize",
    "Rotate",
    "Posterize",
    "Solarize",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)
_TRANSLATE = 0.3  # of the side at magnitude 10, as timm's transforms_factory sets it
_MAX_RANDOM_DEPTH = 3


@dataclasses.dataclass(frozen=True)
class AugMix:
    """What a configuration string says; the defaults are timm's. Depth 0 is 1 to 3, at random."""

    magnitude: float = 3.0
    width: int = 3
    depth: int = 0
    alpha: float = 1.0
    blended: bool = False
    magnitude_std: float = float("inf")

    @classmethod
    def parse(cls, config: str) -> "AugMix":
        """Reads `augmix`, then in any order `-m3`, `-w3`, `-d2`, `-a1`, `-b0`, `-mstd0.5`.

        Raises:
          ValueError: a part is none of these, is there twice, or leaves nothing to mix.
        """
        keys = {
            "m": "magnitude",
            "w": "width",
            "d": "depth",
            "a": "alpha",
            "b": "blended",
            "mstd": "magnitude_std",
        }
        settings = parse_config(config, cls, keys, example="augmix-m5-w4-d2")
        if settings.width < 1 or not settings.alpha:
            raise ValueError(f"config must have a width -w and an alpha -a above 0; got {config!r}")
        return settings


class Draws(NamedTuple):
    """What is drawn for an image.

    Attributes:
      choices: which op, float32 `[width, depth]` in [0, 1).
      sides: which of its directions, likewise.
      magnitudes: of the ops, likewise.
      depths: ops of each chain, int32 `[width]`; what is drawn for others is not used.
      shares: of each chain in the mix, float32 `[width]`, of sum 1.
      mixed: the mix's share of the result, float32 scalar.
    """

    choices: tf.Tensor
    sides: tf.Tensor
    magnitudes: tf.Tensor
    depths: tf.Tensor
    shares: tf.Tensor
    mixed: tf.Tensor


@register_op("augmix", random=True)
def augmix(
    config: str = "augmix-m3-w3",
    interpolation: str = "bicubic",
    fill: int | tuple[int, int, int] = (124, 116, 104),
) -> FeaturesFn:
    """Mixes the image with `width` chains of 1 to 3 (or `depth`) ops, applied side by side.

    The chains' shares are Dirichlet(alpha, ...), the image keeps a share Beta(alpha, alpha). The 13
    ops are Pillow's, with timm's strengths that increase with the magnitude, which is drawn for
    each op uniformly between 0 and `m`, or from a normal distribution with `mstd`. The loss on the
    consistency of several such images is not part of this.

    Args:
      config: see `AugMix.parse`. `b1` blends the chains into the image one after the other, each
        time cutting off fractions of a grey level.
      interpolation: as in `timm_randaug`.
      fill: likewise.
    """
    settings = AugMix.parse(config)
    ops = TimmOps(AUGMIX_OPS, interpolation, fill, increasing=True, translate=_TRANSLATE)

    def augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        draws = draw_all(settings, seed)
        pixels = tf.cast(image, tf.float32)

        def chain(i: tf.Tensor) -> tf.Tensor:
            return tf.cast(_apply_chain(ops, image, draws, i), tf.float32)

        if settings.blended:
            blended_shares = _shares_one_after_the_other(draws.shares * draws.mixed)
            result = tf.foldl(
                lambda result, i: tf.floor(_blend(result, chain(i), blended_shares[i])),
                tf.range(settings.width),
                initializer=pixels,
            )
        else:
            mix = tf.foldl(
                lambda mix, i: mix + draws.shares[i] * chain(i),
                tf.range(settings.width),
                initializer=tf.zeros_like(pixels),
            )
            result = _blend(pixels, tf.floor(tf.clip_by_value(mix, 0, 255)), draws.mixed)
        return tf.ensure_shape(tf.cast(result, tf.uint8), image.shape)

    return on_rgb_and_seed("augmix", augment)


def draw_all(settings: AugMix, seed: tf.Tensor) -> Draws:
    """All that is random of an image; `seed` is int64 `[2]`."""
    depth = settings.depth or _MAX_RANDOM_DEPTH
    seeds = [tf.random.experimental.stateless_fold_in(seed, number) for number in range(5)]
    choices, sides = tf.unstack(draw([2, settings.width, depth], seeds[0]))
    magnitudes = draw_magnitudes(
        choices.shape, seeds[1], settings.magnitude, settings.magnitude_std
    )
    depths = tf.fill([settings.width], depth)
    if not settings.depth:
        depths = tf.random.stateless_uniform([settings.width], seeds[2], 1, depth + 1, tf.int32)
    dirichlet_draws = uniforms([DIRICHLET_DRAWS, settings.width], seeds[3])
    shares = symmetric_dirichlet(dirichlet_draws, settings.alpha)
    mixed = symmetric_beta(*tf.unstack(uniforms([2], seeds[4])), settings.alpha)
    return Draws(choices, sides, magnitudes, depths, shares, mixed)


def _apply_chain(ops: TimmOps, image: tf.Tensor, draws: Draws, chain: tf.Tensor) -> tf.Tensor:
    def apply_op(image: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        drawn = (x[chain, place] for x in (draws.choices, draws.sides, draws.magnitudes))
        number, argument = ops.choose(image, *drawn)
        return ops.op_set.apply(image, number, argument, tf.zeros([2]))

    return tf.foldl(apply_op, tf.range(draws.depths[chain]), initializer=image)


def _shares_one_after_the_other(shares: tf.Tensor) -> tf.Tensor:
    """What to blend in each time so that in the end all have these shares."""
    left_by_later = 1 - tf.cumsum(shares, reverse=True, exclusive=True)
    return tf.clip_by_value(tf.math.divide_no_nan(shares, left_by_later), 0, 1)


def _blend(image: tf.Tensor, other: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    return image + share * (other - image)
