"""Mixup and CutMix: each image of a batch mixed with another one, on the device.

Mixup (Zhang et al., 2018) blends all pixels by a share λ ~ Beta(alpha, alpha); CutMix (Yun et al.,
2019) pastes a box of about a share 1 - λ. Labels are mixed in the proportion that the pixels are.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

from vit_tf.data.cutmix import cutmix_box, minmax_box, outside, outside_share
from vit_tf.data.stateless_draws import (
    DIRICHLET_DRAWS,
    symmetric_beta,
    symmetric_dirichlet,
    uniforms,
)
from vit_tf.suggestions import did_you_mean

_CHOICES = {
    "mode": ("batch", "pair", "elementwise"),
    "style": ("timm", "big_vision"),
    "cutmix_box_rule": ("old", "new"),
}


class Mixing:
    """Mixes a replica's batch of images and targets, with randomness that follows from a key.

    Styles: `"timm"`, with which DeiT was trained, mixes image i with image n-1-i.  `"big_vision"`,
    with which AugReg and FlexiViT were trained, knows mixup alone: shares of sum 1, the largest of
    image i, the next of image i-1, and so on. Either mixes within a replica's batch, as the
    references do, with draws of each replica's own.

    Masked examples are given to nobody: an image keeps the share of a partner that is masked.

    A key draws the same compiled or not, see `stateless_draws`.

    Args:
      mixup_alpha: of mixup; 0: no mixup.
      cutmix_alpha: of CutMix; 0: no CutMix.
      probability: how often a batch, pair or image is mixed at all.
      switch_probability: how often that is CutMix, if both are on.
      mode: who shares λ, box and choice: the whole `"batch"`, the two of a `"pair"`, or none
        (`"elementwise"`).
      style: `"timm"` or `"big_vision"`.
      cutmix_box_rule: `"old"`: the box has an even side, rounded down, as in the published recipes;
        `"new"`: an odd side stays odd, as in timm from 1.0.31 on.
      correct_lam: set λ of the labels to the share that the box, clipped at the border, has left.
      cutmix_minmax: turns CutMix on with boxes whose height and width are drawn uniformly between
        these shares of the image's, e.g. (0.2, 0.8), and whose place is inside the image; λ is what
        they leave, and has no alpha.
      num_mixed: how many images go into one; more than two in the style `"big_vision"` only, whose
        `mixup.n` this is. Shares are then Dirichlet(mixup_alpha, ...), in falling order.

    Raises:
      ValueError: an argument does not fit; the message says which and what would.
    """

    def __init__(
        self,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        probability: float = 1.0,
        switch_probability: float = 0.5,
        mode: str = "batch",
        style: str = "timm",
        cutmix_box_rule: str = "old",
        correct_lam: bool = True,
        cutmix_minmax: tuple[float, float] | None = None,
        num_mixed: int = 2,
    ):
        _check_choice("mode", mode)
        _check_choice("style", style)
        _check_choice("cutmix_box_rule", cutmix_box_rule)
        for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
            if not 0.0 <= alpha < math.inf:
                raise ValueError(f"Mixing.{name} must be at least 0 and finite; given {alpha}")
        if mixup_alpha == cutmix_alpha == 0.0 and cutmix_minmax is None:
            raise ValueError(
                "Mixing with mixup_alpha = 0 and cutmix_alpha = 0 mixes nothing; set one of them, "
                "or leave Mixing out"
            )
        for name, share in (
            ("probability", probability),
            ("switch_probability", switch_probability),
        ):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"Mixing.{name} must lie in [0, 1]; given {share}")
        if cutmix_minmax is not None:
            cutmix_minmax = _checked_minmax(cutmix_minmax, cutmix_alpha)
        has_cutmix = bool(cutmix_alpha or cutmix_minmax)
        if style == "big_vision" and (has_cutmix or mode != "batch"):
            raise ValueError(
                "Mixing.style 'big_vision' is mixup with one λ a batch; given cutmix_alpha = "
                f"{cutmix_alpha}, cutmix_minmax = {cutmix_minmax} and mode = {mode!r}. Leave out "
                "CutMix and set mode = 'batch', or style = 'timm'"
            )
        if num_mixed < 2 or (num_mixed > 2 and style != "big_vision"):
            raise ValueError(
                f"Mixing.num_mixed must be 2, or more in the style 'big_vision'; given {num_mixed} "
                f"in the style {style!r}"
            )
        self._mixup_alpha = mixup_alpha
        self._cutmix_alpha = cutmix_alpha
        self._has_cutmix = has_cutmix
        self._minmax = cutmix_minmax
        self._probability = probability
        self._cutmix_share = switch_probability if mixup_alpha else 1.0
        self._mode = mode
        self._style = style
        self._box_rule = cutmix_box_rule
        self._correct_lam = correct_lam
        self._num_mixed = num_mixed

    def __str__(self) -> str:
        kinds = []
        if self._mixup_alpha:
            of_several = f" of {self._num_mixed} images" if self._num_mixed > 2 else ""
            kinds.append(f"mixup {self._mixup_alpha:g}{of_several}")
        if self._minmax:
            kinds.append("CutMix with sides of {:g} to {:g}".format(*self._minmax))
        elif self._has_cutmix:
            kinds.append(f"CutMix {self._cutmix_alpha:g} ({self._box_rule} box rule)")
        if len(kinds) == 2:
            kinds.append(f"CutMix in {self._cutmix_share:.0%}")
        if self._has_cutmix and not (self._correct_lam or self._minmax):
            kinds.append("labels not corrected to the clipped box")
        return (
            f"{', '.join(kinds)}, probability {self._probability:g}, by {self._mode}, "
            f"{self._style} style"
        )

    def __call__(
        self, images: tf.Tensor, targets: tf.Tensor, mask: tf.Tensor, key: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Mixes a batch.

        Args:
          images: [batch, height, width, channels] of static shape, normalised already. (Others,
            uint8 among them, become float32 and keep their range; unlike timm's they are not
            rounded.)
          targets: [batch, classes], smoothed already if they shall be.
          mask: [batch], 0 for examples that are none.
          key: int32 [2]; all that is drawn follows from it.

        Returns:
          Images and targets of the same shapes, float32.

        Raises:
          ValueError: for a batch whose images cannot all have partners.
        """
        batch, height, width, _ = images.shape
        self._check_batch(batch)
        indices = tf.range(batch)

        def given(partner: tf.Tensor) -> tf.Tensor:
            return tf.where(tf.gather(mask, partner) > 0, partner, indices)

        if self._style == "big_vision":
            partners = [given(tf.roll(indices, i, axis=0)) for i in range(1, self._num_mixed)]
            shares = self._draw_shares(key)
            return blend_several(images, partners, shares), blend_several(targets, partners, shares)
        partner = given(tf.reverse(indices, [0]))
        groups = {"batch": 1, "pair": batch // 2, "elementwise": batch}[self._mode]
        lam, kept = self._draw(groups, (height, width), key)
        if self._mode == "pair":
            lam, kept = (tf.concat([x, tf.reverse(x, [0])], axis=0) for x in (lam, kept))
        return blend(images, partner, kept[..., None]), blend(targets, partner, lam[:, None])

    def _check_batch(self, batch: int | None) -> None:
        """Raises ValueError for a batch, None if of unknown size, without partners for all."""
        even, least = self._style == "timm", self._num_mixed
        if batch is None or batch < least or (even and batch % 2):
            needed = "an even number of images" if even else f"at least {least} images"
            raise ValueError(
                f"Mixing in {self._style} style needs {needed} for each replica; the batch has "
                f"{batch}. Change Input.batch_size"
            )

    def _draw_shares(self, key: tf.Tensor) -> tf.Tensor:
        """What an image has of itself, of the one before it, ...: [num_mixed], falling."""
        happens, *draws = tf.unstack(uniforms((1 + DIRICHLET_DRAWS, self._num_mixed), key))
        shares = symmetric_dirichlet(tf.stack(draws), self._mixup_alpha)
        shares = tf.sort(shares, direction="DESCENDING")
        return tf.where(happens[0] < self._probability, shares, tf.one_hot(0, self._num_mixed))

    def _draw(
        self, groups: int, image_size: tuple[int, int], key: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """What `groups` images keep: of their labels [groups], of their pixels [groups, h, w].

        Without CutMix, the pixels' share is of the shape [groups, 1, 1].
        """
        happens, switch, u, v, *place = tf.unstack(uniforms((8, groups), key))
        is_cutmix = switch < self._cutmix_share if self._has_cutmix else tf.zeros([groups], bool)
        alpha = tf.where(is_cutmix, self._cutmix_alpha or 1.0, self._mixup_alpha)
        lam = symmetric_beta(u, v, alpha)
        happens = happens < self._probability
        lam = tf.where(happens, lam, 1.0)
        blended = lam[:, None, None]
        if not self._has_cutmix:
            return lam, blended
        if self._minmax:
            box = minmax_box(place, image_size, self._minmax) * tf.cast(happens, tf.int32)[:, None]
        else:
            box = cutmix_box(lam, _center(place[:2], image_size), image_size, self._box_rule)
        kept = tf.where(is_cutmix[:, None, None], outside(box, image_size), blended)
        if self._correct_lam or self._minmax:
            lam = tf.where(is_cutmix, outside_share(box, image_size), lam)
        return lam, kept


def blend(values: tf.Tensor, partner: tf.Tensor, share: tf.Tensor | float) -> tf.Tensor:
    """Mixes each of a batch with another one: `share` of itself, the rest of its partner.

    Args:
      values: [batch, ...], images or targets.
      partner: int [batch], whom each is mixed with.
      share: broadcast to `values`; 0 or 1 takes either value exactly.

    Returns:
      float32 [batch, ...].
    """
    values = tf.cast(values, tf.float32)
    return values * share + tf.gather(values, partner) * (1.0 - share)


def blend_several(values: tf.Tensor, partners: Sequence[tf.Tensor], shares: tf.Tensor) -> tf.Tensor:
    """Mixes each of a batch with several others.

    Args:
      values: [batch, ...], images or targets.
      partners: int [batch] each, whom each is mixed with.
      shares: [1 + len(partners)], of each itself and of its partners.

    Returns:
      float32 [batch, ...].
    """
    values = tf.cast(values, tf.float32)
    own, *others = tf.unstack(shares)
    terms = [tf.gather(values, p) * share for p, share in zip(partners, others, strict=True)]
    return tf.add_n([values * own, *terms])


def _center(draws: Sequence[tf.Tensor], image_size: tuple[int, int]) -> tf.Tensor:
    """Any pixel, int32 [groups, 2], out of uniform numbers [groups] for row and column."""
    return tf.cast(tf.stack(draws, axis=-1) * tf.constant(image_size, tf.float32), tf.int32)


def _checked_minmax(minmax: Sequence[float], cutmix_alpha: float) -> tuple[float, float]:
    if len(minmax) != 2 or not 0.0 <= minmax[0] < minmax[1] <= 1.0:
        raise ValueError(
            "Mixing.cutmix_minmax must be two rising shares of the image's side in [0, 1], like "
            f"(0.2, 0.8); given {minmax}"
        )
    if cutmix_alpha not in (0.0, 1.0):  # timm takes 1, whatever was given
        raise ValueError(
            f"Mixing.cutmix_alpha = {cutmix_alpha} would have no effect, since cutmix_minmax "
            "draws the boxes; leave out one of them"
        )
    return tuple(minmax)


def _check_choice(name: str, value: str) -> None:
    choices = _CHOICES[name]
    if value not in choices:
        hint = did_you_mean(value, choices)
        raise ValueError(
            f"Mixing.{name} must be {' or '.join(map(repr, choices))}; given {value!r}.{hint}"
        )
