"""Features of a split in one pass of a frozen model over its images, kept on disk if wanted."""

import os
from collections.abc import Sequence

import keras
import tensorflow as tf

from vit_tf.data import Input
from vit_tf.evaluation.extractor import Extractor
from vit_tf.evaluation.feature_cache import FeatureCache
from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.featurizers import Featurizer


def extract(
    model: keras.Model | str | os.PathLike | Featurizer | None,
    data: Input,
    features: str | Sequence[str],
    cache_dir: str | os.PathLike | None = None,
    strategy: tf.distribute.Strategy | None = None,
) -> FeatureSet:
    """Computes features of every example of a split, once, in the split's order.

    The model runs once for all features, and computes what they need and no more.

    Args:
      model: a model of `create_model`, the folder of a SavedModel from encoded images, a
        `Featurizer`, or None for `"pixels"` alone.
      data: evaluation data, `Input(..., training=False)`. Of a SavedModel, which preprocesses
        itself, only its records are used.
      features: one name or several; see `feature_names`.
      cache_dir: a local folder to keep the features in, and to take them from if they are there;
        see `FeatureCache`. Several workers need one that all see. Default: nothing is kept.
      strategy: where to run. Default: the current one.

    Returns:
      The features, float32 whatever the model computes in; those of a cache are mapped from their
      files. Skipped records are left out.

    Raises:
      ValueError: for training data, for features that the model does not have (the closest names
        are given), for images that it does not take, and for records that cannot be read.
      OSError: if `cache_dir` cannot be written or its disk is full.
    """
    extractor = Extractor(model, data, features, strategy)
    return extractor() if cache_dir is None else FeatureCache(cache_dir, extractor).features()
