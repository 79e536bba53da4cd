"""The boxes that CutMix pastes (Yun et al., 2019), as timm draws them."""

from collections.abc import Sequence

import tensorflow as tf


def cutmix_box(
    lam: tf.Tensor, center: tf.Tensor, image_size: Sequence[int], rule: str = "old"
) -> tf.Tensor:
    """The box that CutMix pastes: sides of sqrt(1 - λ) of the image's, clipped at its border.

    Args:
      lam: [...], the share of the image that shall stay.
      center: int32 [..., 2], row and column, inside the image.
      image_size: height and width.
      rule: see `Mixing`.

    Returns:
      int32 [..., 4]: first row, row after the last, first column, column after the last.
    """
    size = tf.constant(image_size, tf.int32)
    side = tf.cast(size, tf.float32) * tf.sqrt(1.0 - lam)[..., None]
    side = tf.cast(side, tf.int32)  # [..., 2]
    after = side // 2 if rule == "old" else (side + 1) // 2
    low = tf.clip_by_value(center - side // 2, 0, size)
    high = tf.clip_by_value(center + after, 0, size)
    return tf.stack([low[..., 0], high[..., 0], low[..., 1], high[..., 1]], axis=-1)


def outside(box: tf.Tensor, image_size: Sequence[int]) -> tf.Tensor:
    """Which pixels lie outside of a box [..., 4]: float32 [..., height, width] of 0 and 1."""
    top, bottom, left, right = (edge[..., None] for edge in tf.unstack(box, axis=-1))
    rows, columns = tf.range(image_size[0]), tf.range(image_size[1])
    in_rows = (rows >= top) & (rows < bottom)  # [..., height]
    in_columns = (columns >= left) & (columns < right)  # [..., width]
    return 1.0 - tf.cast(in_rows[..., :, None] & in_columns[..., None, :], tf.float32)


def outside_share(box: tf.Tensor, image_size: Sequence[int]) -> tf.Tensor:
    """Share of the pixels outside of a box [..., 4]: float32 [...]."""
    top, bottom, left, right = tf.unstack(box, axis=-1)
    area = tf.cast((bottom - top) * (right - left), tf.float32)
    return 1.0 - area / (image_size[0] * image_size[1])


def minmax_box(
    draws: tf.Tensor, image_size: Sequence[int], minmax: tuple[float, float]
) -> tf.Tensor:
    """A box whose height and width are drawn alike, and which lies inside the image.

    Each side is a whole number of pixels in [min, max), as shares of the image's, each cut off to
    pixels (timm's `rand_bbox_minmax`).

    Args:
      draws: float32 [4, ...], uniform in (0, 1): height, width, first row, first column.
      image_size: height and width.
      minmax: least and greatest share of the image's side.

    Returns:
      int32 [..., 4] as of `cutmix_box`.

    Raises:
      ValueError: no number of pixels lies between the two.
    """
    edges = []
    for image_side, side_draw, place_draw in zip(image_size, draws[:2], draws[2:], strict=True):
        least, limit = (int(image_side * share) for share in minmax)
        if least == limit:
            raise ValueError(
                f"Mixing.cutmix_minmax = {minmax}: of {image_side} pixels, no whole number lies "
                f"between these shares. Take shares that are further apart, or larger images"
            )
        side = least + _below(limit - least, side_draw)
        low = _below(image_side - side, place_draw)
        edges += [low, low + side]
    return tf.stack(edges, axis=-1)


def _below(limit: tf.Tensor | int, draw: tf.Tensor) -> tf.Tensor:
    """A whole number in [0, limit)."""
    return tf.cast(draw * tf.cast(limit, tf.float32), tf.int32)
