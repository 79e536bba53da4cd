"""What timm's policies have in common: configuration strings, magnitudes, arguments of ops."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import TypeVar

import tensorflow as tf

from vit_tf.data.augment_ops import ENHANCING, OpSet, pillow_ops
from vit_tf.data.warp import INTERPOLATIONS

_UNIFORM_ABOVE = 100  # a larger standard deviation means: uniform between 0 and the magnitude

Settings = TypeVar("Settings")


def parse_config(config: str, settings: type[Settings], keys: dict[str, str], example: str):
    """Reads a string like `rand-m9-mstd0.5-inc1`.

    Args:
      config: the policy's name, then in any order keys with a number, joined by `-`.
      settings: a dataclass whose fields are ints, floats or bools.
      keys: by key, the name of the field.
      example: what is shown if the string cannot be read; its name is the one that must be given.

    Returns:
      An instance of `settings`.

    Raises:
      ValueError: a part is none of these, or is there twice.
    """
    name = example.split("-")[0]
    first, *rest = config.split("-")
    found = [re.fullmatch(r"([a-z]+)(\d+|\d*\.\d+|inf)", part) for part in rest]
    given = [match[1] if match else None for match in found]
    if first != name or not set(given) <= set(keys) or len(set(given)) < len(given):
        raise ValueError(
            f"config must be {name!r} and then, each at most once, -{', -'.join(keys)} with a "
            f"number, like {example!r}; got {config!r}"
        )
    kinds = {field.name: type(field.default) for field in dataclasses.fields(settings)}
    convert = {float: float, int: int, bool: lambda text: bool(int(text))}
    values = {keys[match[1]]: match[2] for match in found}
    return settings(**{field: convert[kinds[field]](text) for field, text in values.items()})


def draw_magnitudes(
    shape: Sequence[int], seed: tf.Tensor, magnitude: float, std: float, limit: float = 10
) -> tf.Tensor:
    """Magnitudes, float32 of a shape: normal, cut at 0 and `limit`; see `_UNIFORM_ABOVE`."""
    if std > _UNIFORM_ABOVE:
        magnitudes = tf.random.stateless_uniform(shape, seed, 0.0, magnitude)
    else:
        magnitudes = magnitude + std * tf.random.stateless_normal(shape, seed)
    return tf.clip_by_value(magnitudes, 0, limit)


@dataclasses.dataclass(frozen=True)
class TimmOps:
    """The ops of a policy, which are Pillow's, with the arguments that timm gives them.

    Attributes:
      names: those to draw from.
      interpolation: of shears, translations and rotations, as in `warp.warp`.
      fill: likewise.
      increasing: all ops get stronger with the magnitude: blends move away from the image in either
        direction, posterizing drops and solarizing catches more.
      translate: translations at magnitude 10, as a share of the image's side.

    Raises:
      ValueError: there is no such interpolation, or no such grey level.
    """

    names: Sequence[str]
    interpolation: str
    fill: int | tuple[int, int, int]
    increasing: bool
    translate: float = 0.45

    def __post_init__(self):
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(
                f"interpolation must be one of {INTERPOLATIONS}, got {self.interpolation!r}"
            )
        if not all(0 <= level <= 255 for level in tf.nest.flatten(self.fill)):
            raise ValueError(f"fill must be in 0..255, got {self.fill!r}")

    @functools.cached_property
    def op_set(self) -> OpSet:
        """What the ops do."""
        return pillow_ops(self.interpolation, self.fill)

    @property
    def unchanged(self) -> int:
        """The number of the op that changes nothing."""
        return self.op_set.numbers(["Identity"])[0]

    def choose(
        self, image: tf.Tensor, choice: tf.Tensor, side: tf.Tensor, magnitude: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The number and the argument of one op for `OpSet.apply`.

        Args:
          image: uint8 `[h, w, 3]`.
          choice: in [0, 1), which op.
          side: in [0, 1), which of the two directions.
          magnitude: of the op; 10 is the full strength.
        """
        drawn = tf.cast(choice * len(self.names), tf.int32)
        arguments = self._arguments(image, magnitude / 10, tf.where(side < 0.5, -1.0, 1.0))
        argument = tf.gather([arguments.get(name, 0.0) for name in self.names], drawn)
        return tf.gather(self.op_set.numbers(self.names), drawn), argument

    def _arguments(
        self, image: tf.Tensor, strength: tf.Tensor, sign: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """The arguments of the ops that have one, scalars."""
        height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
        bits, threshold = tf.floor(4 * strength), tf.floor(256 * strength)
        factor = 0.1 + 1.8 * strength
        if self.increasing:
            bits, threshold = 4 - bits, 256 - threshold
            factor = tf.maximum(0.1, 1 + 0.9 * strength * sign)
        signed = strength * sign
        return {
            "Rotate": 30 * signed,
            "Posterize": tf.clip_by_value(bits, 0, 8),
            "Solarize": threshold,
            "SolarizeAdd": tf.minimum(tf.floor(110 * strength), 128),
            **dict.fromkeys(ENHANCING, factor),
            "ShearX": 0.3 * signed,
            "ShearY": 0.3 * signed,
            "TranslateX": self.translate * signed * width,
            "TranslateY": self.translate * signed * height,
        }
