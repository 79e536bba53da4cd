"""RandAugment (Cubuk et al. 2019) as big_vision has it, and the levels of AugReg."""

import dataclasses

import tensorflow as tf

from vit_tf.data.augment_ops import big_vision_argument, big_vision_ops, with_sign
from vit_tf.data.image_ops import on_rgb_and_seed
from vit_tf.data.op_registry import FeaturesFn, draw, register_op
from vit_tf.suggestions import did_you_mean

RANDAUG_OPS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Cutout",
    "SolarizeAdd",
)


@dataclasses.dataclass(frozen=True)
class AugRegLevel:
    """Strength of augmentation: RandAugment's layers and magnitude, and alpha of mixup."""

    num_layers: int
    magnitude: int
    mixup_alpha: float


# Steiner et al. 2021, "How to train your ViT?", section 3.2; big_vision's configs/vit_i21k.py.
AUGREG_LEVELS = {
    "none": AugRegLevel(0, 0, 0.0),
    "light1": AugRegLevel(2, 0, 0.0),
    "light2": AugRegLevel(2, 10, 0.2),
    "medium1": AugRegLevel(2, 15, 0.2),
    "medium2": AugRegLevel(2, 15, 0.5),
    "strong1": AugRegLevel(2, 20, 0.5),
    "strong2": AugRegLevel(2, 20, 0.8),
}


@register_op("randaug", random=True)
def randaug(num_layers: int = 2, magnitude: float = 10) -> FeaturesFn:
    """Applies `num_layers` of big_vision's 16 ops, each drawn uniformly and always applied.

    The ops and their surprises are those of `augment_ops.big_vision_ops`, the strengths those of
    `augment_ops.big_vision_argument`. Magnitude 0 is not "no augmentation": it solarizes all pixels
    and takes colour, contrast, brightness and sharpness down to a tenth.

    Args:
      num_layers: ops applied one after the other.
      magnitude: usually 0 to 20; 10 is the full strength of the original policy.
    """
    if num_layers < 0 or magnitude < 0:
        raise ValueError("num_layers and magnitude must not be negative")
    op_set = big_vision_ops()
    numbers = op_set.numbers(RANDAUG_OPS)
    arguments = [big_vision_argument(name, magnitude) for name in RANDAUG_OPS]

    def augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        draws = draw([num_layers, 4], seed)
        for layer in range(num_layers):
            choice, sign, *place = tf.unstack(draws[layer])
            drawn = tf.cast(choice * len(numbers), tf.int32)
            number = tf.gather(numbers, drawn)
            argument = with_sign(number, tf.gather(arguments, drawn), op_set, sign)
            image = op_set.apply(image, number, argument, tf.stack(place))
        return image

    return on_rgb_and_seed("randaug", augment)


@register_op("augreg", random=True)
def augreg(level: str) -> FeaturesFn:
    """RandAugment at a level of AugReg: none, light1, light2, medium1, medium2, strong1, strong2.

    Only "none" leaves the image as it is: "light1" is `randaug(2, 0)`, see there. The mixup that
    belongs to the level is `augreg_mixup_alpha`.
    """
    chosen = _augreg_level(level)
    return randaug(chosen.num_layers, chosen.magnitude)


def augreg_mixup_alpha(level: str) -> float:
    """The alpha of mixup that belongs to a level of AugReg; 0 is no mixup.

    Raises:
      ValueError: there is no such level.
    """
    return _augreg_level(level).mixup_alpha


def _augreg_level(level: str) -> AugRegLevel:
    if level not in AUGREG_LEVELS:
        hint = did_you_mean(level, AUGREG_LEVELS, count=2)
        raise ValueError(f"level must be one of {', '.join(AUGREG_LEVELS)}, got {level!r}.{hint}")
    return AUGREG_LEVELS[level]
