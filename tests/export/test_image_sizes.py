"""One SavedModel at several input sizes: each as a model of that size with the same weights."""

import functools
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.checkpoints import load_checkpoint, save_checkpoint
from vit_tf.data.preprocess import Preprocess
from vit_tf.export import ExportOptions, export_saved_model
from vit_tf.export.forms import forms_of
from vit_tf.export.serving_module import ServingModule
from vit_tf.models import create_model
from vit_tf.training import Classification

NAMES = list("0123456789")
SIZES = {"depth": 1, "width": 8, "num_heads": 2, "mlp_dim": 8, "num_classes": 10}
IMAGE = tf.io.encode_png(np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)).numpy()


def make(family, image_size, **changes):
    keras.utils.set_random_seed(0)
    return create_model(family, image_size=image_size, **{**SIZES, "patch_size": 4, **changes})


def serving(model, image_sizes, preprocess=None):
    predict = functools.partial(Classification(lambda: model).predict_values, model)
    preprocess = Preprocess(preprocess or model.preprocessing.ops)
    forms = forms_of(model, predict, preprocess, image_sizes)
    return ServingModule(model, predict, preprocess, NAMES, forms=forms)


@pytest.mark.parametrize(
    ("family", "changes", "size", "name"),
    [
        ("vit", {"pool": "token", "num_registers": 2}, (24, 36), "classify_24x36"),
        ("vit", {"pool": "map", "position_embedding": "none"}, 32, "classify_32"),
        ("deit_distilled", {}, 32, "classify_32"),
        ("flexivit", {"pool": "gap", "position_grid_size": 3}, 32, "classify_32"),
    ],
)
def test_another_size_gives_what_a_model_of_that_size_gives(tmp_path, family, changes, size, name):
    model = make(family, 16, **changes)
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:  # the head's zeros would hide any difference
        weight.assign(weight + rng.normal(0, 0.3, weight.shape))
    path = str(tmp_path / "weights.npz")
    save_checkpoint(model, path)
    other = make(family, size, **changes)
    # As load_checkpoint does of itself for files that have this package's own names.
    own_way = other.position_resize or "corner_aligned"
    load_checkpoint(other, path, position_resize=own_way)
    image = Preprocess(other.preprocessing.ops).image_from_bytes(IMAGE)
    serve = serving(model, [size]).signatures()[name]
    outputs = serve(image_bytes=tf.constant([IMAGE, b""]))
    np.testing.assert_allclose(outputs["logits"][:1], other(image[None]), rtol=0, atol=1e-5)
    assert outputs["error"].numpy().tolist() == [b"", b"the image is empty"]
    assert model.image_size == (16, 16)


def test_weights_are_written_once(tmp_path):
    model = make("vit", 16, width=128, mlp_dim=512)
    module = serving(model, [32, 48])
    names = ("classify", "classify_32", "classify_48")
    signatures = {name: module.signatures()[name] for name in names}
    tf.saved_model.save(module, str(tmp_path), signatures=signatures)
    (data,) = (tmp_path / "variables").glob("*.data-*")
    values = sum(int(np.prod(weight.shape)) for weight in model.weights)
    assert data.stat().st_size < 1.05 * 4 * values
    outputs = tf.saved_model.load(str(tmp_path)).signatures["classify_48"](
        image_bytes=tf.constant([IMAGE])
    )
    assert outputs["logits"].shape == (1, 10)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("vit", {"position_embedding": "sincos2d"}, "one size alone: it has sincos2d positions"),
        ("vit", {"patch_size": 8}, r"patch_size=\(8, 8\) does not divide image_size=\(36, 36\)"),
    ],
)
def test_a_model_that_cannot_take_a_size_says_so(family, changes, message):
    with pytest.raises(ValueError, match=message):
        serving(make(family, 16, **changes), [36])


def test_a_mixer_has_one_size():
    sizes = {"tokens_mlp_dim": 4, "channels_mlp_dim": 4, "width": 8, "depth": 1}
    mixer = create_model("mixer", image_size=16, patch_size=8, num_classes=10, **sizes)
    with pytest.raises(ValueError, match="Mixer takes images of one size alone: it has no table"):
        serving(mixer, [32])


def test_a_preprocessing_that_is_not_the_models_is_not_guessed_at():
    with pytest.raises(ValueError, match=r"the evaluation's is decode\|resize\(20\)"):
        serving(make("vit", 16), [32], "decode|resize(20)|central_crop(16)|value_range(-1, 1)")


def test_an_export_is_asked_for_sizes_by_its_options(tmp_path):
    model = make("vit", 16, position_embedding="sincos2d")
    evaluated = types.SimpleNamespace(preprocess=Preprocess(model.preprocessing.ops))
    options = ExportOptions(image_sizes=(32,))
    with pytest.raises(ValueError, match="export it without image_sizes"):
        export_saved_model(model, model, evaluated, NAMES, str(tmp_path), options=options)
    assert not list(tmp_path.iterdir())
