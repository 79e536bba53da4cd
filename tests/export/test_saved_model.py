"""The SavedModel serves what was evaluated."""

import functools
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.analysis.fingerprints import saved_graph_fingerprint, weights_fingerprint
from vit_tf.data.input import Input
from vit_tf.data.tfds_source import TFDSSource
from vit_tf.export import ExportOptions, export_saved_model, serving_module
from vit_tf.export.saved_keras import keras_model_of, model_card
from vit_tf.models import create_model, extract_features
from vit_tf.training import Classification

NAMES = list("0123456789")


@pytest.fixture(scope="module")
def eval_input(digits_dir):
    # Resized and cropped, so that preprocessing left out or done twice would show.
    ops = "decode|resize(20)|central_crop(16)|value_range(-1, 1)"
    return Input(TFDSSource(digits_dir, "test"), ops, batch_size=16, training=False)


def make_model(seed=0):
    keras.utils.set_random_seed(seed)
    model = create_model(
        "vit",
        image_size=16,
        patch_size=8,
        width=16,
        depth=2,
        num_heads=2,
        mlp_dim=32,
        pool="token",
        num_classes=10,
    )
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:  # the head's zeros would hide any difference
        weight.assign(weight + rng.normal(0, 0.3, weight.shape))
    return model


def predict_of(model):
    return functools.partial(Classification(lambda: model).predict_values, model)


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def predict(model):
    return predict_of(model)


@pytest.fixture(scope="module")
def exported(model, predict, eval_input, tmp_path_factory, in_fresh_process):
    folder = str(tmp_path_factory.mktemp("digits"))
    options = ExportOptions(attention=("rollout", "maps"))
    with in_fresh_process():
        return export_saved_model(model, predict, eval_input, NAMES, folder, {"step": 7}, options)


@pytest.fixture(scope="module")
def evaluated(predict, eval_input):
    """Logits of the whole test split, by record."""
    logits = np.zeros((360, 10), np.float32)
    for batch in eval_input():
        real = batch["mask"].numpy() > 0
        logits[batch["index"].numpy()[real]] = predict(batch["image"])["logits"].numpy()[real]
    return logits


@pytest.fixture(scope="module")
def encoded(eval_input):
    return [record["image"].numpy() for record in eval_input.encoded()]


def test_served_bytes_give_the_evaluated_logits(exported, evaluated, encoded):
    serve = tf.saved_model.load(exported).signatures["serving_default"]
    outputs = serve(image_bytes=tf.constant(encoded))
    np.testing.assert_allclose(outputs["logits"], evaluated, rtol=0, atol=1e-5)
    probabilities = outputs["probabilities"].numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    order = np.argsort(-evaluated, axis=1)[:, :5]
    np.testing.assert_array_equal(outputs["top_ids"].numpy()[:, 0], order[:, 0])
    names = [[name.decode() for name in row] for row in outputs["top_names"].numpy()]
    assert names == [[str(i) for i in row] for row in outputs["top_ids"].numpy()]
    expected = np.take_along_axis(probabilities, outputs["top_ids"].numpy(), axis=1)
    np.testing.assert_array_equal(outputs["top_probabilities"], expected)


def test_the_image_signature_takes_decoded_images_of_any_size(exported, evaluated, encoded):
    serve = tf.saved_model.load(exported).signatures["image"]
    pixels = tf.stack([tf.io.decode_png(image, channels=3) for image in encoded[:9]])
    np.testing.assert_allclose(serve(images=pixels)["logits"], evaluated[:9], rtol=0, atol=1e-5)
    larger = serve(images=tf.zeros([2, 31, 17, 3], tf.uint8))
    assert larger["logits"].shape == (2, 10)


def test_embed_gives_what_enters_the_head(exported, model, eval_input, encoded):
    embed = tf.saved_model.load(exported).signatures["embed"]
    served = embed(image_bytes=tf.constant(encoded[:16]))["pre_logits"]
    batch = next(iter(eval_input()))
    expected = extract_features(model, batch["image"], ["pre_logits"])["pre_logits"]
    np.testing.assert_allclose(served, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        served @ model.head.kernel + model.head.bias, model(batch["image"]), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_batch_size(exported, count, encoded):
    serve = tf.saved_model.load(exported).signatures["serving_default"]
    outputs = serve(image_bytes=tf.constant(encoded[:count], tf.string, shape=[count]))
    assert outputs["logits"].shape == (count, 10)


def test_the_model_card_says_what_it_is(exported, model):
    card = json.loads((Path(exported) / "assets.extra/model_card.json").read_text())
    assert card["preprocess"].startswith("decode|resize(20")
    assert card["class_names"] == list("0123456789")
    assert card["step"] == 7
    assert card["check"]["largest_difference"] == 0
    assert card["data"] == {"name": "digits", "version": "1.0.0", "split": "test", "examples": 360}
    assert (card["precision"], card["parameters"]) == ("float32", model.count_params())
    assert card["origin"] is None
    assert card["fingerprints"] == {
        "weights": weights_fingerprint(model),
        "graph": saved_graph_fingerprint(exported),
    }
    assert card["versions"]["tensorflow"] == tf.__version__
    assert card["signatures"]["model"] == {
        "inputs": {"images": "float32 [?, 16, 16, 3]"},
        "outputs": {"logits": "float32 [?, 10]", "probabilities": "float32 [?, 10]"},
    }
    assert card["signatures"]["classify"]["inputs"] == {"image_bytes": "string [?]"}
    assert (Path(exported) / "assets.extra/labels.txt").read_text().split("\n") == [*NAMES, ""]


def test_every_signature_was_checked_in_a_process_without_vit_tf(exported):
    check = model_card(exported)["check"]
    assert check["signatures"] == [
        "preprocess", "serving_default", "attention", "classify", "embed", "image", "image_float",
        "model", "tf_example",
    ]  # fmt: skip
    assert (check["images"], check["largest_difference"]) == (16, 0)
    assert sorted(os.listdir(exported)) == [
        "assets", "assets.extra", "fingerprint.pb", "saved_model.pb", "variables"
    ]  # fmt: skip


def test_a_damaged_model_card_is_named(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "1")
    card = tmp_path / "1/assets.extra/model_card.json"
    card.write_text(card.read_text()[:500])
    with pytest.raises(ValueError, match="model_card.json is damaged .* export the model again"):
        model_card(str(tmp_path))


def test_exports_are_numbered_and_nothing_else_is_left(model, predict, eval_input, exported):
    folder = Path(exported).parent
    assert export_saved_model(model, predict, eval_input, NAMES, str(folder)) == f"{folder}/2"
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]


def mirrored_images(serving, images):
    outputs = serving._predict(tf.reverse(images, axis=[2]))
    return {**outputs, **top_of(serving, outputs)}


def mirrored_pixels(serving, pixels):
    images = serving._map(serving._preprocess.image_from_pixels, pixels)
    return mirrored_images(serving, images)


@tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
def half_embedding(self, image_bytes):
    images = self._map(self._preprocess.image_from_bytes, image_bytes)
    return {"pre_logits": 0.5 * serving_module.embedding(self.model, images)["pre_logits"]}


def all_named_7(serving, images):
    outputs = serving._predict(images)
    return {
        **outputs,
        **top_of(serving, outputs),
        "top_names": tf.fill([tf.shape(images)[0], 5], "7"),
    }


def top_of(serving, outputs):
    top = tf.math.top_k(outputs["probabilities"], 5)
    names = tf.gather(serving.class_names, top.indices)
    return {"top_ids": top.indices, "top_probabilities": top.values, "top_names": names}


@pytest.mark.parametrize(
    ("method", "replacement", "message"),
    [
        ("_outputs", mirrored_images, "logits .signature serving_default. differ from the eval"),
        ("_classify_images", mirrored_pixels, "logits .signature image. differ from the eval"),
        ("embed", half_embedding, "pre_logits .signature embed. differ from the eval"),
        ("_outputs", all_named_7, "top_names .signature serving_default. are not those of the"),
    ],
)
def test_a_served_model_that_differs_is_not_published(
    model, predict, eval_input, tmp_path, monkeypatch, method, replacement, message
):
    monkeypatch.setattr(serving_module.ServingModule, method, replacement)
    with pytest.raises(RuntimeError, match=message):
        export_saved_model(model, predict, eval_input, NAMES, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_bfloat16_model_serves_the_evaluated_bits_and_comes_back(eval_input, tmp_path):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = make_model()
        path = export_saved_model(model, predict_of(model), eval_input, NAMES, str(tmp_path))
    finally:
        keras.config.set_dtype_policy(policy)
    assert model.compute_dtype == "bfloat16"
    assert Path(path).name == "1"
    card = model_card(path)
    assert (card["precision"], card["check"]["largest_difference"]) == ("bfloat16", 0)
    again = keras_model_of(card)
    assert {layer.compute_dtype for layer in again._flatten_layers()} == {"bfloat16", "float32"}
    images = next(iter(eval_input()))["image"]
    np.testing.assert_array_equal(again(images), model(images))


@pytest.mark.slow
def test_bfloat16_and_standardized_images_are_served_with_the_evaluated_bits(
    digits_dir, tmp_path, in_fresh_process
):
    ops = "decode|crop_ratio(16, 0.9)|standardize"  # its divisions are not to be rewritten
    data = Input(TFDSSource(digits_dir, "test"), ops, batch_size=16, training=False)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = make_model(seed=1)
        with in_fresh_process():
            path = export_saved_model(model, predict_of(model), data, NAMES, str(tmp_path))
    finally:
        keras.config.set_dtype_policy(before)
    assert model_card(path)["check"]["largest_difference"] == 0


@pytest.mark.slow
def test_a_served_model_that_works_in_this_process_alone_is_not_published(
    model, predict, eval_input, tmp_path, in_fresh_process
):
    def needs_this_process(images):
        outputs = predict(images)
        logits = tf.numpy_function(lambda values: values, [outputs["logits"]], tf.float32)
        return {**outputs, "logits": tf.ensure_shape(logits, [None, 10])}

    with in_fresh_process(), pytest.raises(RuntimeError, match="without vit_tf.*failed .*pyfunc"):
        export_saved_model(model, needs_this_process, eval_input, NAMES, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_saved_model_cli_lists_every_signature(exported):
    command = "from tensorflow.python.tools.saved_model_cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "show", "--all", f"--dir={exported}"],
        capture_output=True,
        text=True,
        check=True,
    )
    listed = set(re.findall(r"signature_def\['(\w+)'\]", done.stdout))
    assert listed - {"__saved_model_init_op"} == set(model_card(exported)["signatures"])


def test_a_folder_that_cannot_be_made_is_named(model, predict, eval_input):
    with pytest.raises(OSError, match="could not write an export to /proc/x: .*--export_dir$"):
        export_saved_model(model, predict, eval_input, NAMES, "/proc/x")


def test_a_disk_that_fills_up_leaves_nothing(model, predict, eval_input, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            export_saved_model(model, predict, eval_input, NAMES, str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
