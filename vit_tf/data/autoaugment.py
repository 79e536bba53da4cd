"""AutoAugment's ImageNet policy `v0` (Cubuk et al. 2018), as big_vision has it."""

import tensorflow as tf

from vit_tf.data.augment_ops import big_vision_argument, big_vision_ops, with_sign
from vit_tf.data.image_ops import on_rgb_and_seed
from vit_tf.data.op_registry import FeaturesFn, draw, register_op

# Each line is a sub-policy: op, probability, magnitude, and again.
POLICY_V0 = (
    (("Equalize", 0.8, 1), ("ShearY", 0.8, 4)),
    (("Color", 0.4, 9), ("Equalize", 0.6, 3)),
    (("Color", 0.4, 1), ("Rotate", 0.6, 8)),
    (("Solarize", 0.8, 3), ("Equalize", 0.4, 7)),
    (("Solarize", 0.4, 2), ("Solarize", 0.6, 2)),
    (("Color", 0.2, 0), ("Equalize", 0.8, 8)),
    (("Equalize", 0.4, 8), ("SolarizeAdd", 0.8, 3)),
    (("ShearX", 0.2, 9), ("Rotate", 0.6, 8)),
    (("Color", 0.6, 1), ("Equalize", 1.0, 2)),
    (("Invert", 0.4, 9), ("Rotate", 0.6, 0)),
    (("Equalize", 1.0, 9), ("ShearY", 0.6, 3)),
    (("Color", 0.4, 7), ("Equalize", 0.6, 0)),
    (("Posterize", 0.4, 6), ("AutoContrast", 0.4, 7)),
    (("Solarize", 0.6, 8), ("Color", 0.6, 9)),
    (("Solarize", 0.2, 4), ("Rotate", 0.8, 9)),
    (("Rotate", 1.0, 7), ("TranslateY", 0.8, 9)),
    (("ShearX", 0.0, 0), ("Solarize", 0.8, 4)),
    (("ShearY", 0.8, 0), ("Color", 0.6, 4)),
    (("Color", 1.0, 0), ("Rotate", 0.6, 2)),
    (("Equalize", 0.8, 4), ("Equalize", 0.0, 8)),
    (("Equalize", 1.0, 4), ("AutoContrast", 0.6, 2)),
    (("ShearY", 0.4, 7), ("SolarizeAdd", 0.6, 7)),
    (("Posterize", 0.8, 2), ("Solarize", 0.6, 10)),
    (("Solarize", 0.6, 8), ("Equalize", 0.6, 1)),
    (("Color", 0.8, 6), ("Rotate", 0.4, 5)),
)
_TRANSLATE = 250  # pixels at magnitude 10


@register_op("autoaug", random=True)
def autoaug(policy: str = "v0") -> FeaturesFn:
    """Applies one of the policy's 25 pairs of ops, each op with its probability and magnitude.

    The ops are those of `augment_ops.big_vision_ops`.

    Args:
      policy: `"v0"` is the only one.
    """
    if policy != "v0":
        raise ValueError(f"policy must be 'v0', got {policy!r}")
    op_set = big_vision_ops()
    numbers = [op_set.numbers([name for name, _, _ in pair]) for pair in POLICY_V0]
    probabilities = [[probability for _, probability, _ in pair] for pair in POLICY_V0]
    arguments = [
        [big_vision_argument(name, magnitude, _TRANSLATE) for name, _, magnitude in pair]
        for pair in POLICY_V0
    ]
    unchanged = op_set.numbers(["Identity"])[0]

    def augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        choice, *draws = tf.unstack(draw([5], seed))
        drawn = tf.cast(choice * len(POLICY_V0), tf.int32)
        for place in range(2):
            chance, side = draws[2 * place : 2 * place + 2]
            applied = chance < tf.gather(probabilities, drawn)[place]
            number = tf.where(applied, tf.gather(numbers, drawn)[place], unchanged)
            argument = tf.gather(arguments, drawn)[place]
            argument = with_sign(number, argument, op_set, side)
            image = op_set.apply(image, number, argument, tf.zeros([2]))
        return image

    return on_rgb_and_seed("autoaug", augment)
