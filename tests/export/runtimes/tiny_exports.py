"""Tiny exported models."""

import functools
import json
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from vit_tf.data import Preprocess
from vit_tf.export.serving_module import ServingModule
from vit_tf.models import create_model
from vit_tf.training import Classification

NAMES = list("0123456789")


def write_export(folder: Path, name: str, **overrides) -> str:
    """Writes a SavedModel with the signatures and the card of `export_saved_model`, unchecked."""
    keras.utils.set_random_seed(0)
    shape = {"image_size": 16, "width": 16, "depth": 1, "mlp_dim": 32, "num_classes": 10}
    shape = {**shape, "num_heads": 2, "patch_size": 8, **overrides}
    shape = {key: value for key, value in shape.items() if value is not None}
    model = create_model(name, **shape)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:  # zeros, as a head's, would hide any difference
        weight.assign(weight + rng.normal(0, 0.1, weight.shape))
    size = shape["image_size"]
    preprocess = Preprocess(f"decode|resize({size})|value_range(-1, 1)")
    predict = functools.partial(Classification(lambda: model).predict_values, model)
    module = ServingModule(model, predict, preprocess, NAMES)
    tf.saved_model.save(module, str(folder), signatures=module.signatures())
    card = {"model": name, "preprocess": str(preprocess), "class_names": NAMES}
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "model_card.json").write_text(json.dumps(card))
    return str(folder)
