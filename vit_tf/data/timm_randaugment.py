"""RandAugment as timm has it (`timm/data/auto_augment.py`), written as `rand-m9-mstd0.5-inc1`."""

import dataclasses

import tensorflow as tf

from vit_tf.data.augment_ops import ENHANCING
from vit_tf.data.image_ops import on_rgb_and_seed
from vit_tf.data.op_registry import FeaturesFn, draw, register_op
from vit_tf.data.timm_policy import TimmOps, draw_magnitudes, parse_config

TIMM_OPS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    *ENHANCING,
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
)


@dataclasses.dataclass(frozen=True)
class TimmRandAugment:
    """What a configuration string says; the defaults are timm's."""

    magnitude: float = 10.0
    num_layers: int = 2
    probability: float = 0.5
    magnitude_std: float = 0.0
    magnitude_max: float = 10.0
    increasing: bool = False

    @classmethod
    def parse(cls, config: str) -> "TimmRandAugment":
        """Reads `rand`, then in any order `-m9`, `-n2`, `-p0.5`, `-mstd0.5`, `-mmax10`, `-inc1`.

        Raises:
          ValueError: a part is none of these, or is there twice.
        """
        keys = {
            "m": "magnitude",
            "n": "num_layers",
            "p": "probability",
            "mstd": "magnitude_std",
            "mmax": "magnitude_max",
            "inc": "increasing",
        }
        return parse_config(config, cls, keys, example="rand-m9-mstd0.5-inc1")


@register_op("timm_randaug", random=True)
def timm_randaug(
    config: str = "rand-m9-mstd0.5-inc1",
    interpolation: str = "bicubic",
    fill: int | tuple[int, int, int] = (124, 116, 104),
) -> FeaturesFn:
    """RandAugment with timm's 15 ops, each drawn uniformly and applied with probability 1/2.

    The ops are Pillow's. The magnitude is drawn anew for each op from a normal distribution cut at
    0 and 10 (`mmax`). With `inc1` all ops get stronger with the magnitude, see `TimmOps`.
    Translations go up to 45 % of the side. Weights of ops (`tweights`) are not supported.

    Args:
      config: see `TimmRandAugment.parse`; the default is DeiT's.
      interpolation: of shears, translations and rotations: `"nearest"`, `"bilinear"` or
        `"bicubic"` (DeiT's; timm draws one of the last two if none is given).
      fill: grey level or red, green and blue of what comes from outside; the default is
        ImageNet's mean colour.
    """
    settings = TimmRandAugment.parse(config)
    ops = TimmOps(TIMM_OPS, interpolation, fill, settings.increasing)

    def augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        draws = draw([settings.num_layers, 3], seed)
        magnitudes = draw_magnitudes(
            [settings.num_layers],
            tf.random.experimental.stateless_fold_in(seed, 1),
            settings.magnitude,
            settings.magnitude_std,
            settings.magnitude_max,
        )
        for layer in range(settings.num_layers):
            choice, chance, side = tf.unstack(draws[layer])
            number, argument = ops.choose(image, choice, side, magnitudes[layer])
            number = tf.where(chance < settings.probability, number, ops.unchanged)
            image = ops.op_set.apply(image, number, argument, tf.zeros([2]))
        return image

    return on_rgb_and_seed("timm_randaug", augment)
