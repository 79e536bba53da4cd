"""What is served in bfloat16 gives the bits of the model that was evaluated in bfloat16."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from vit_tf.export import ExportOptions, export_model
from vit_tf.export.inference_model import in_precision
from vit_tf.export.saved_keras import keras_model_of, model_card
from vit_tf.models import create_model

TINY = {"image_size": 16, "num_classes": 10, "width": 16, "depth": 1}
ATTENTION = {**TINY, "num_heads": 2, "mlp_dim": 32}
PATCHES = {**ATTENTION, "patch_size": 8}
MODELS = [
    ("vit", {**PATCHES, "pool": "map", "layer_scale_init": 0.5}),
    ("deit_distilled", PATCHES),
    ("hybrid", {**ATTENTION, "image_size": 32, "patch_size": 1, "resnet_stages": (1, 1)}),
    (
        "levit",
        {**TINY, "image_size": 64, "width": (8, 12), "num_heads": 2, "key_dim": 4},
    ),
    ("mixer", {**TINY, "patch_size": 8, "tokens_mlp_dim": 8, "channels_mlp_dim": 32}),
]


def make_model(family, arguments, dtype):
    model = create_model(family, dtype=dtype, **arguments)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + rng.normal(0, 0.2, weight.shape))
    return model


def served(model):
    return tf.function(lambda images: model(images, training=False))


@pytest.mark.parametrize(("family", "arguments"), MODELS, ids=[name for name, _ in MODELS])
def test_weights_of_blocks_stored_in_bfloat16_change_no_bit(family, arguments):
    model = make_model(family, arguments, "mixed_bfloat16")
    stored = in_precision(model, None)
    ends = ("dense_in/kernel", "qkv/kernel", "dense_in/linear/kernel", "qkv/linear/kernel")
    kernels = [w for w in stored.weights if w.path.endswith(ends)]
    assert kernels and all(weight.dtype == "bfloat16" for weight in kernels)
    assert all(w.dtype == "float32" for w in stored.weights if "norm" in w.path)
    images = np.random.default_rng(1).uniform(-1, 1, (3, *model.input_shape[1:]))
    images = tf.constant(images, tf.float32)
    np.testing.assert_array_equal(served(stored)(images), served(model)(images))


def test_an_export_in_bfloat16_is_smaller_and_comes_back_as_a_keras_model(tmp_path):
    model = make_model("vit", {**PATCHES, "width": 64, "mlp_dim": 256}, "float32")
    image = tf.io.encode_png(np.zeros((20, 20, 3), np.uint8)).numpy()
    sizes = {}
    for precision in ("float32", "bfloat16"):
        options = ExportOptions(precision=precision)
        path = Path(export_model(model, [image], tmp_path / precision, options=options))
        sizes[precision] = sum(file.stat().st_size for file in path.glob("variables/*"))
    assert sizes["bfloat16"] < 0.65 * sizes["float32"]
    images = tf.constant(np.random.default_rng(1).uniform(-1, 1, (3, 16, 16, 3)), tf.float32)
    again = keras_model_of(model_card(str(path)))
    expected = served(in_precision(model, "bfloat16"))(images)
    np.testing.assert_array_equal(served(again)(images), expected)
