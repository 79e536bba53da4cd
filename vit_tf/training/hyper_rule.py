"""BiT-HyperRule: how to fine-tune, decided from the data's own size and nothing else.

Source: Kolesnikov et al., 2020, "Big Transfer (BiT)" (arXiv:1912.11370), section 3.3, and
google-research/big_transfer, bit_hyperrule.py, with which every decision here agrees. The functions
are what `gin/protocols/bit_hyperrule.gin` binds.
"""

import dataclasses
from collections.abc import Callable, Sequence

from vit_tf import planning
from vit_tf.data import Mixing
from vit_tf.data.ops import height_and_width
from vit_tf.data.sized import fill_size
from vit_tf.data.sources import Source
from vit_tf.data.survey import typical_area
from vit_tf.training.run_length import RunLength
from vit_tf.training.schedule_shapes import Staircase

_SMALL_AREA = 96 * 96  # pixels, of images that are enlarged less
_SMALL, _LARGE = (160, 128), (512, 480)  # sides of what is cropped, and of the crop
_FEW, _MANY = 20_000, 500_000  # examples
_SCHEDULES = {
    "few": (100, 200, 300, 400, 500),
    "some": (500, 3000, 6000, 9000, 10_000),
    "many": (500, 6000, 12_000, 18_000, 20_000),
}
_MIXUP_ALPHA = 0.1


@dataclasses.dataclass(frozen=True)
class HyperRule:
    """The decisions for a data set.

    Attributes:
      resize: side in pixels to which training images are stretched.
      crop: side of the random crop out of that, and of evaluation's images.
      boundaries: steps at which the warm-up ends, the rate falls to a tenth (three times) and
        training stops.
      mixup_alpha: 0 for no mixup.
    """

    resize: int
    crop: int
    boundaries: tuple[int, int, int, int, int]
    mixup_alpha: float

    @classmethod
    def of(cls, examples: int, area: int) -> "HyperRule":
        """Decides.

        Args:
          examples: of the training split.
          area: height times width of its typical image.
        """
        resize, crop = _SMALL if area < _SMALL_AREA else _LARGE
        size = "few" if examples < _FEW else "some" if examples < _MANY else "many"
        return cls(resize, crop, _SCHEDULES[size], 0.0 if size == "few" else _MIXUP_ALPHA)

    @property
    def steps(self) -> int:
        """Length of the run."""
        return self.boundaries[-1]


def hyper_rule_steps(examples: int) -> int:
    """Steps of a run on so many examples, for `RunConfig.steps`."""
    return HyperRule.of(examples, area=0).steps


def hyper_rule_schedule(length: RunLength) -> Staircase:
    """The rule's schedule: a linear warm-up, then a tenth three times, for `Optimization.schedule`.

    A run of another length than the rule's keeps its proportions.

    Raises:
      ValueError: if the input does not know its size.
    """
    if length.examples_per_epoch is None:
        raise ValueError(
            "hyper_rule_schedule needs an input that knows its size; take another schedule, such "
            "as @staircase"
        )
    rule = HyperRule.of(length.examples_per_epoch, area=0)
    warmup, *falls = (round(step * length.steps / rule.steps) for step in rule.boundaries[:-1])
    # The reference's rate is smaller behind a boundary, not yet at it.
    return Staircase(
        steps=length.steps,
        warmup=warmup,
        boundaries=[step + 1 for step in falls],
        factors=[0.1, 0.01, 0.001],
    )


def hyper_rule_size(
    source: Callable[[], Source], image_size: int | Sequence[int] | None = None
) -> int:
    """Side of the images in pixels, for `create_model.image_size` and `Input.image_size`.

    Args:
      source: makes the training source; in gin `@train/TFDSSource`.
      image_size: of the data's images, side or (height, width). Default: some of them are read.
    """
    if image_size is not None:
        height, width = height_and_width(image_size)
        return HyperRule.of(0, height * width).crop
    made = _made(source)
    if made is None or not made.readable:  # only while a run is planned
        planning.note("data", "an image of the training data", "its size decides: taken for large")
        return _LARGE[1]
    return HyperRule.of(0, typical_area(made)).crop


def hyper_rule_preprocess(image_size: int | Sequence[int], flip: bool = True) -> str:
    """Training's preprocessing: stretched, cropped at random, flipped, scaled to [-1, 1].

    Args:
      image_size: side of the crop, or (height, width); around the rule's 128 pixels the margin is
        a quarter, around its 480 a fifteenth.
      flip: whether images are flipped at random; not where left and right matter.
    """
    height, width = height_and_width(image_size)
    whole, part = _SMALL if height * width <= _SMALL[1] ** 2 else _LARGE
    crop = f"resize({{size * {whole} / {part}}})|random_crop({{size}})"
    ops = f"decode|{crop}|{'flip_lr|' if flip else ''}value_range(-1, 1)"
    return fill_size(ops, image_size)


def hyper_rule_mixing(source: Callable[[], Source]) -> Mixing | None:
    """Mixup for all but small data, for `Classification.mixing`.

    Args:
      source: makes the training source; in gin `@train/TFDSSource`.
    """
    made = _made(source)
    alpha = HyperRule.of(made.num_examples if made else 0, area=0).mixup_alpha
    return Mixing(mixup_alpha=alpha) if alpha else None


def _made(source: Callable[[], Source]) -> Source | None:
    """The source; None if it is missing while a run is planned, which notes it elsewhere."""
    try:
        return source()
    except FileNotFoundError:
        if not planning.is_planned():
            raise
        return None
