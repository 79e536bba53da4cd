"""Batch norms folded into dense layers and convolutions: the same model, faster at inference."""

import keras

from vit_tf.layers.batch_norm import foldable_norms
from vit_tf.models.base import ImageModel


def fold_batch_norms(model: keras.Model) -> keras.Model:
    """A model that computes the same at inference with fewer operations.

    Every batch norm right behind a dense layer or convolution, or right before a dense layer, is
    multiplied into that layer's kernel; what is left of it is a bias, if anything. Which norms
    these are their owners say (`BatchNorm.follows`, `BatchNorm.precedes`); others stay as they are.
    The products are taken in float64; outputs differ by the rounding of the new kernels.

    The result is for inference and export: its statistics cannot be trained any more, and files
    are loaded into a model before it is folded.

    Args:
        model: A model of `create_model`, with its weights; it stays as it is. One without such
            norms is returned itself.

    Returns:
        The folded model; its `get_config` tells of it, so that it saves and loads as any other.
    """
    if not isinstance(model, ImageModel) or not foldable_norms(model._flatten_layers()):
        return model
    folded = type(model).from_config(model.get_config())
    for copy, weight in zip(folded.weights, model.weights, strict=True):
        copy.assign(weight)
    folded.fold_norms()
    return folded
