"""Exports hold folded batch norms, and say what the evaluated model says."""

import numpy as np
import pytest
import tensorflow as tf

from vit_tf.export import ExportOptions, export_model, inference_model
from vit_tf.export.saved_keras import keras_model_of, model_card
from vit_tf.models import create_model

LEVIT = {"image_size": 32, "width": (8, 12), "depth": 1, "num_heads": 2, "key_dim": 4}
LEVIT |= {"stem_widths": (4, 8), "num_classes": 5}
PNG = tf.io.encode_png(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).numpy()


@pytest.fixture
def model():
    made = create_model("levit", **LEVIT)
    random = np.random.default_rng(1)
    for weight in made.weights:
        value = random.normal(scale=0.3, size=weight.shape)
        weight.assign(np.exp(value) if weight.path.endswith("variance") else value)
    return made


def served(path):
    loaded = tf.saved_model.load(path)
    names = [v.name for v in loaded.signatures["serving_default"].variables]
    images = np.random.default_rng(2).normal(size=(3, 32, 32, 3)).astype(np.float32)
    return names, loaded.signatures["model"](images=tf.constant(images))["logits"], images


@pytest.mark.parametrize("fold", [True, False])
def test_a_saved_model_has_statistics_only_if_it_is_asked_to(model, fold, tmp_path):
    path = export_model(model, [PNG], tmp_path, options=ExportOptions(fold_batch_norms=fold))
    names, logits, images = served(path)
    assert any("moving_variance" in name for name in names) != fold
    expected = np.asarray(model(images))
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
    again = keras_model_of(model_card(path))
    assert again.norms_folded == fold
    np.testing.assert_allclose(again(images), logits, atol=1e-5 * np.abs(expected).max())


def test_a_fold_that_changes_the_outputs_is_not_exported(model, monkeypatch):
    def broken(model):
        other = type(model).from_config(model.get_config())
        other.fold_norms()
        return other

    monkeypatch.setattr(inference_model, "fold_batch_norms", broken)
    with pytest.raises(
        RuntimeError, match="with its batch norms folded the model's outputs differ"
    ):
        inference_model.inference_model(model, ExportOptions())


def test_a_folded_model_is_exported_in_bfloat16(model):
    options = ExportOptions(precision="bfloat16")
    half = inference_model.inference_model(model, options)
    kernels = {w.path[6:]: w.dtype for w in half.weights if w.path.endswith("kernel")}
    assert kernels["stage0/attn00/qkv/linear/kernel"] == "bfloat16"
    assert kernels["stem/conv0/kernel"] == "float32"
    assert {w.dtype for w in half.weights if w.path.endswith("beta")} == {"float32"}
    images = np.random.default_rng(2).normal(size=(3, 32, 32, 3)).astype(np.float32)
    expected = np.asarray(model(images))
    np.testing.assert_allclose(half(images), expected, atol=0.05 * np.abs(expected).max())
