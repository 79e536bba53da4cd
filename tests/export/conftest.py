"""A served folder that the tests of TensorFlow Serving's side share."""

import functools
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.data.digits import digits_collection
from vit_tf.data.preprocess import Preprocess
from vit_tf.export.serving_files import write_serving_files
from vit_tf.export.serving_module import ServingModule
from vit_tf.export.warmup import write_warmup_requests
from vit_tf.models import create_model
from vit_tf.training import Classification

SERVED_NAME = "digits"


@pytest.fixture(scope="session")
def digit_images() -> list[bytes]:
    """Encoded images of the digits' test split."""
    return [record.read() for record in digits_collection().splits["test"][:16]]


@pytest.fixture(scope="session")
def served_folder(tmp_path_factory, digit_images) -> Path:
    """An export folder of a tiny model as `tools/export.py` leaves it: version 1 and the files."""
    keras.utils.set_random_seed(0)
    shape = {"image_size": 16, "patch_size": 8, "num_classes": 10}
    model = create_model("vit", width=16, depth=2, num_heads=2, mlp_dim=32, pool="token", **shape)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:  # the head's zeros would hide any difference
        weight.assign(weight + rng.normal(0, 0.3, weight.shape))
    predict = functools.partial(Classification(lambda: model).predict_values, model)
    preprocess = Preprocess("decode|resize(20)|central_crop(16)|value_range(-1, 1)")
    module = ServingModule(model, predict, preprocess, list("0123456789"))
    folder = tmp_path_factory.mktemp("served")
    tf.saved_model.save(module, str(folder / "1"), signatures=module.signatures())
    assert write_warmup_requests(str(folder / "1"), digit_images, SERVED_NAME)
    write_serving_files(str(folder), SERVED_NAME)
    return folder
