"""Other forms of a model beside the one that was evaluated: dropping tokens, or none."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.export import ExportOptions, export_model
from vit_tf.models import create_model

SIZES = dict(image_size=16, patch_size=4, width=16, depth=3, num_heads=2, mlp_dim=32, num_classes=3)


@pytest.fixture(scope="module")
def pruned():
    keras.utils.set_random_seed(0)
    model = create_model("dynamic_vit", **SIZES, pruning_blocks=(1, 2), keep_ratios=(0.5, 0.25))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(weight + rng.normal(0, 0.2, weight.shape))
    return model


@pytest.fixture
def images():
    return np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype("float32")


def test_without_dropping_it_says_what_the_unpruned_model_says(pruned, images):
    unpruned = create_model("deit", **SIZES)
    values = {weight.path.partition("/")[2]: weight for weight in pruned.weights}
    for weight in unpruned.weights:
        weight.assign(values[weight.path.partition("/")[2]])
    with pruned.forms["full"]():
        full = pruned(images)
    np.testing.assert_allclose(full, unpruned(images), atol=1e-6)
    with pruned.forms["pruned"]():
        np.testing.assert_array_equal(pruned(images), pruned(images))
    assert np.abs(pruned(images) - full).max() > 1e-3


@pytest.mark.slow
def test_an_export_serves_both_and_another_size(pruned, tmp_path):
    rng = np.random.default_rng(2)
    encoded = [
        tf.io.encode_png(rng.integers(0, 256, (20, 24, 3), np.uint8)).numpy() for _ in range(3)
    ]
    path = export_model(
        pruned,
        encoded,
        str(tmp_path),
        class_names=["a", "b", "c"],
        options=ExportOptions(image_sizes=(24,)),
    )
    signatures = tf.saved_model.load(path).signatures
    answers = {
        name: signatures[name](image_bytes=tf.constant(encoded))["logits"].numpy()
        for name in ("classify", "classify_pruned", "classify_full", "classify_24")
    }
    np.testing.assert_array_equal(answers["classify"], answers["classify_pruned"])
    images = signatures["preprocess"](image_bytes=tf.constant(encoded))["images"]
    with pruned.keeping_all():
        np.testing.assert_allclose(answers["classify_full"], pruned(images), atol=1e-5)
    assert np.abs(answers["classify_full"] - answers["classify"]).max() > 1e-3
