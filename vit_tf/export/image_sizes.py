"""One model at several input sizes: its weights are shared, its positions resized on the way."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from vit_tf.data.preprocess import Preprocess
from vit_tf.layers.position_embedding import LearnedPositionEmbedding
from vit_tf.layers.resampling import resize_matrix

# As `load_checkpoint` resizes the positions of a file of this package.
_RESIZE = "corner_aligned"

Size = tuple[int, int]


def predict_at(
    model: keras.Model, size: Size, predict: Callable[[tf.Tensor], dict[str, tf.Tensor]]
) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    """The function `predict` of a model, for images of another size.

    Args:
      model: of `create_model`, with patches.
      size: (height, width) of the images.
      predict: calls the model.

    Raises:
      ValueError: the model cannot take images of this size.
    """
    grid = _grid_size_at(model, size)

    def predict_resized(images: tf.Tensor) -> dict[str, tf.Tensor]:
        with _at_size(model, size, grid):
            return predict(images)

    return predict_resized


def preprocess_at(model: keras.Model, size: Size, preprocess: Preprocess) -> Preprocess:
    """The evaluation's preprocessing, for another size.

    Raises:
      ValueError: the evaluation does not preprocess as `model.preprocessing` says, so that nobody
        knows how it would at another size.
    """
    own = str(Preprocess(model.preprocessing.ops))
    if str(preprocess) != own:
        raise ValueError(
            f"image_sizes needs the preprocessing of the model, {own}, which tells what it is at "
            f"another size; the evaluation's is {preprocess}"
        )
    return Preprocess(dataclasses.replace(model.preprocessing, image_size=size).ops)


def _grid_size_at(model: keras.Model, size: Size) -> Size:
    """(rows, columns) of patches of images of a size."""
    name = getattr(model, "variant", None) or type(model).__name__
    positions = getattr(model, "position_embedding", None)
    if positions not in ("learned", "none"):
        what = f"has {positions} positions" if positions else "has no table of positions"
        raise ValueError(
            f"the model {name} takes images of one size alone: it {what}, and only learned ones "
            "are resized; export it without image_sizes"
        )
    config = {**model.get_config(), "image_size": size}
    # The constructor knows what goes; no weights are made.
    with keras.StatelessScope(initialize_variables=False):
        return type(model).from_config(config).grid_size


@contextlib.contextmanager
def _at_size(model: Any, size: Size, grid: Size) -> Iterator[None]:
    """Within, the model takes images of another size."""
    scope = keras.StatelessScope()
    if isinstance(model.positions, LearnedPositionEmbedding):
        scope.add_update((model.positions.table, _resized_table(model, grid)))
    usual = model.image_size
    model.image_size = size
    try:
        with scope:
            yield
    finally:
        model.image_size = usual


def _resized_table(model: Any, grid: Size) -> Any:
    """A model's positions for another grid: [1, tokens, width] float32."""
    table = ops.convert_to_tensor(model.positions.table)
    slots = model.position_slots
    rows, columns = (
        ops.convert_to_tensor(resize_matrix(old, new, model.position_resize or _RESIZE), "float32")
        for old, new in zip(model.position_grid, grid, strict=True)
    )
    patches = ops.reshape(table[0, slots:], (*model.position_grid, -1))
    patches = ops.einsum("Rr,rcw->Rcw", rows, patches)
    patches = ops.reshape(ops.einsum("Cc,Rcw->RCw", columns, patches), (1, math.prod(grid), -1))
    return ops.concatenate([table[:, :slots], patches], axis=1)


def size_name(size: Size) -> str:
    """`384` for squares, else `384x288`, height first."""
    return f"{size[0]}" if size[0] == size[1] else f"{size[0]}x{size[1]}"
