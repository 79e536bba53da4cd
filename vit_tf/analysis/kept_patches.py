"""Which patches a model that drops tokens keeps (Rao et al. 2021, "DynamicViT", figure 4)."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from matplotlib.figure import Figure

from vit_tf.analysis.image_panels import image_panels
from vit_tf.analysis.in_batches import Progress, in_batches
from vit_tf.models.features import extract_features

# What is left of a dropped patch's colours; the rest is white.
_LEFT = 0.15


def drops_patches(model: keras.Model) -> bool:
    """Whether a model drops patches on its way, as those of the family `dynamic_vit` do."""
    return bool(getattr(model, "pruning_blocks", ()))


def kept_patches(
    model: keras.Model, images: np.ndarray, batch_size: int = 8, progress: Progress = iter
) -> np.ndarray:
    """Which patches of each image are still there after each stage of dropping.

    Args:
      model: of the family `dynamic_vit`.
      images: float [images, height, width, channels] as `model.preprocessing` says.
      batch_size: images at a time.
      progress: see `in_batches`.

    Returns:
      bool [images, stages, rows, columns]. What a stage keeps, those before it have kept too.

    Raises:
      ValueError: the model drops no patches, or there is no image.
    """
    if not drops_patches(model):
        raise ValueError(
            f"a {type(model).__name__} keeps all patches; the family dynamic_vit drops some"
        )
    names = [f"predictor{stage}/policy" for stage in range(len(model.pruning_blocks))]

    def summarize(batch: Any) -> dict[str, Any]:
        return extract_features(model, batch, names)

    policies = in_batches(summarize, images, batch_size, progress)
    kept = np.stack([policies[name] for name in names], axis=1) > 0.5
    return kept.reshape(*kept.shape[:2], *model.grid_size)


def kept_positions_of_blocks(model: keras.Model) -> dict[int, str]:
    """Of the blocks that get fewer patches, by number: the intermediate that says which."""
    if not drops_patches(model):
        return {}
    stages = {b: sum(first <= b for first in model.pruning_blocks) for b in range(model.depth)}
    return {b: f"predictor{stage - 1}/kept_positions" for b, stage in stages.items() if stage}


def among_all_tokens(weights: Any, positions: Any, patches: int) -> Any:
    """Attention among the tokens that are left, as attention among all.

    Args:
      weights: [batch, heads, 1 + kept, 1 + kept], the class token first.
      positions: integers [batch, kept]: which of the patches the others are.
      patches: how many there were.

    Returns:
      [batch, heads, 1 + patches, 1 + patches], zero where a token is gone.
    """
    places = ops.concatenate([ops.zeros_like(positions[:, :1]), positions + 1], axis=1)
    chosen = ops.one_hot(places, 1 + patches, dtype=weights.dtype)
    return ops.einsum("bqt,bhqk,bks->bhts", chosen, weights, chosen)


def plot_kept_patches(
    images: np.ndarray,
    kept: np.ndarray,
    stages: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    panel: float = 1.6,
) -> Figure:
    """Shows images and, beside each, what is left of it after each stage.

    Args:
      images: uint8 [images, height, width, 3], as the model saw them.
      kept: see `kept_patches`.
      stages: titles of the columns; by default the share that is kept.
      row_titles: beside the rows; as many as images, or none.
      panel: width of an image in inches.

    Returns:
      The figure.

    Raises:
      ValueError: there are not as many rows of `kept` as images.
    """
    shares = [f"{share:.0%} kept" for share in kept.mean(axis=(0, 2, 3))]
    columns = {
        title: [faded(image, of_image[stage]) for image, of_image in zip(images, kept, strict=True)]
        for stage, title in enumerate(stages or shares)
    }
    return image_panels({"": images, **columns}, row_titles, panel=panel)


def faded(image: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """An image whose dropped patches are nearly white.

    Args:
      image: uint8 [height, width, 3].
      kept: bool [rows, columns].

    Returns:
      uint8 [height, width, 3].
    """
    rows, columns = (
        np.arange(pixels) * patches // pixels
        for pixels, patches in zip(image.shape[:2], kept.shape, strict=True)
    )
    stays = kept[rows[:, None], columns][..., None]
    pale = np.round(255 - _LEFT * (255 - image.astype(float)))
    return np.where(stays, image, pale).astype(np.uint8)
