"""Every signature of a SavedModel, over images of every kind, alone and mixed into a batch."""

import functools
import io
import resource
import struct
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from vit_tf.data.preprocess import Preprocess
from vit_tf.export.serving_module import ServingModule
from vit_tf.models import create_model, extract_features
from vit_tf.training import Classification

NAMES = list("0123456789")
OPS = "decode(exif=True)|resize(20)|central_crop(16)|value_range(-1, 1)"
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
RGB = Image.fromarray(PIXELS).resize((32, 24))


def encode(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(RGB, "JPEG", exif=exif)


def with_alpha(image):
    return Image.merge("RGBA", (*image.split(), image.getchannel("G")))


GOOD = {
    "jpeg": encode(RGB, "JPEG"),
    "png": encode(RGB, "PNG"),
    "grey": encode(RGB.convert("L"), "JPEG"),
    "grey png": encode(RGB.convert("L"), "PNG"),
    "16-bit png": encode(Image.fromarray(np.asarray(RGB.convert("L")).astype(np.uint16)), "PNG"),
    "palette with alpha": encode(with_alpha(RGB).quantize(16), "PNG", transparency=3),
    "cmyk": encode(RGB.convert("CMYK"), "JPEG"),
    "exif": turned(),
    "1x1": encode(RGB.resize((1, 1)), "PNG"),
    "8000x6000": encode(Image.new("L", (8000, 6000), 77), "JPEG"),
    "animated gif": encode(
        RGB.quantize(9), "GIF", save_all=True, append_images=[RGB.rotate(90).quantize(9)]
    ),
    "webp": encode(RGB, "WEBP"),
    "bmp": encode(RGB, "BMP"),
}


def claiming(encoded, height, width):
    """The same PNG, whose header claims another size."""
    return encoded[:16] + struct.pack(">II", width, height) + encoded[24:]


BAD = {
    b"": "the image is empty",
    b"text": "not a JPEG, PNG, WebP, GIF or BMP (4 bytes)",
    GOOD["jpeg"][:400]: "damaged or truncated JPEG (400 bytes)",
    GOOD["png"][:100]: "damaged or truncated PNG (100 bytes)",
    GOOD["jpeg"][:3]: "damaged or truncated JPEG (3 bytes)",
    claiming(GOOD["png"], 20_000, 30_000): (
        "the header claims 20000x30000 pixels, more than 178956970"
    ),
    b"RIFF\x80\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00" + bytes(100): (
        "an animated WebP; one frame of it can be read"
    ),
    encode(RGB.quantize(9), "BMP"): "a BMP that is not uncompressed and 24- or 32-bit",
}
MIXED = [image for pair in zip(GOOD.values(), [*BAD, *BAD], strict=False) for image in pair]
IS_GOOD = np.array([image not in BAD for image in MIXED])


def example_of(feature, name="image/encoded"):
    features = tf.train.Features(feature={name: feature})
    return tf.train.Example(features=features).SerializeToString()


def bytes_feature(*values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def randomised(model):
    """Weights of which none is a zero that would hide a difference."""
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight + rng.normal(0, 0.3, weight.shape))
    return model


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    shape = {"image_size": 16, "patch_size": 4, "depth": 2, "num_classes": 10}
    sizes = {"width": 16, "num_heads": 2, "mlp_dim": 32, "num_registers": 3}
    return randomised(create_model("deit_distilled", **shape, **sizes))


@pytest.fixture(scope="module")
def predict(model):
    # For any batch size, as served: for a fixed one TensorFlow chooses other kernels.
    return tf.function(
        functools.partial(Classification(lambda: model).predict_values, model),
        input_signature=[tf.TensorSpec([None, 16, 16, 3])],
    )


@pytest.fixture(scope="module")
def preprocess():
    return Preprocess(OPS)


@pytest.fixture(scope="module")
def folder(model, predict, preprocess, tmp_path_factory):
    module = ServingModule(model, predict, preprocess, NAMES, attention=("rollout", "maps"))
    folder = str(tmp_path_factory.mktemp("saved"))
    tf.saved_model.save(module, folder, signatures=module.signatures())
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    return tf.saved_model.load(folder)


@pytest.fixture(scope="module")
def serve(loaded):
    def call(signature, **inputs):
        return {k: v.numpy() for k, v in loaded.signatures[signature](**inputs).items()}

    return call


@pytest.fixture(scope="module")
def mixed_images(preprocess):
    """What the model gets of `MIXED`: nothing of bad images."""
    images = [
        preprocess.image_from_bytes(image) if good else tf.zeros([16, 16, 3])
        for image, good in zip(MIXED, IS_GOOD, strict=True)
    ]
    return tf.stack(images)


def assert_blank(outputs, failed):
    """Rows that failed hold zeros, no ids and no names."""
    for name, values in outputs.items():
        if name != "error":
            rows = values[failed]
            blank = -1 if name == "top_ids" else b"" if name == "top_names" else 0
            np.testing.assert_array_equal(rows, np.full_like(rows, blank), err_msg=name)


def test_a_session_as_of_tensorflow_serving_gives_the_same(folder, serve):
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], folder)
        signature = loaded.signature_def["classify"]
        names = {key: tensor.name for key, tensor in signature.outputs.items()}
        outputs = session.run(names, {signature.inputs["image_bytes"].name: MIXED})
    expected = serve("classify", image_bytes=tf.constant(MIXED))
    np.testing.assert_allclose(outputs["logits"], expected["logits"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(outputs["error"], expected["error"])


def test_signatures_have_the_agreed_names_and_tensors(loaded):
    classes = {"logits", "probabilities", "top_ids", "top_probabilities", "top_names"}
    expected = {
        "serving_default": ("image_bytes", classes | {"error"}),
        "classify": ("image_bytes", classes | {"error"}),
        "tf_example": ("examples", classes | {"error"}),
        "image": ("images", classes),
        "image_float": ("images", classes),
        "preprocess": ("image_bytes", {"images", "error"}),
        "model": ("images", {"logits", "probabilities"}),
        "embed": ("image_bytes", {"pre_logits", "tokens", "error"}),
        "attention": ("image_bytes", {"rollout", "maps", "error"}),
    }
    found = {
        name: (*signature.structured_input_signature[1], set(signature.structured_outputs))
        for name, signature in loaded.signatures.items()
    }
    assert found == expected
    outputs = loaded.signatures["classify"].structured_outputs
    assert {name: outputs[name].dtype for name in outputs if name.startswith("top")} == {
        "top_ids": tf.int32,
        "top_probabilities": tf.float32,
        "top_names": tf.string,
    }


@pytest.mark.parametrize("kind", GOOD)
def test_an_image_alone_gives_what_is_evaluated_to_the_bit(serve, preprocess, predict, kind):
    outputs = serve("classify", image_bytes=tf.constant([GOOD[kind]]))
    expected = predict(preprocess.image_from_bytes(GOOD[kind])[None])
    assert outputs["error"] == [b""]
    np.testing.assert_array_equal(outputs["logits"], expected["logits"])
    np.testing.assert_array_equal(outputs["probabilities"], expected["probabilities"])
    assert outputs["top_names"].tolist() == [[b"%d" % i for i in outputs["top_ids"][0]]]


@pytest.mark.parametrize(("image", "sentence"), BAD.items(), ids=BAD.values())
def test_a_bad_image_alone_is_a_row_with_an_error(serve, image, sentence):
    outputs = serve("serving_default", image_bytes=tf.constant([image]))
    assert outputs["error"].tolist() == [sentence.encode()]
    assert_blank(outputs, [True])


def test_good_rows_of_a_mixed_batch_are_what_is_evaluated_to_the_bit(serve, predict, mixed_images):
    outputs = serve("classify", image_bytes=tf.constant(MIXED))
    expected = predict(mixed_images)
    np.testing.assert_array_equal(outputs["logits"][IS_GOOD], expected["logits"][IS_GOOD])
    np.testing.assert_array_equal(outputs["error"] == b"", IS_GOOD)
    assert [e.decode() for e in outputs["error"][~IS_GOOD]] == [
        BAD[image] for image in MIXED if image in BAD
    ]
    assert_blank(outputs, ~IS_GOOD)


def test_a_row_does_not_depend_on_its_neighbours(serve):
    """To the bit as an image; the model's sums are rounded as the size of the batch has it."""
    mixed = {s: serve(s, image_bytes=tf.constant(MIXED)) for s in ("preprocess", "classify")}
    for row, image in enumerate(MIXED):
        alone = {s: serve(s, image_bytes=tf.constant([image])) for s in mixed}
        np.testing.assert_array_equal(
            mixed["preprocess"]["images"][row], alone["preprocess"]["images"][0]
        )
        np.testing.assert_allclose(
            mixed["classify"]["logits"][row], alone["classify"]["logits"][0], rtol=0, atol=1e-5
        )


def resident_kilobytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def test_memory_stays_flat_over_bad_images(serve):
    bad = tf.constant([*BAD] * 3)

    def grown_over(calls):
        before = resident_kilobytes()
        for _ in range(calls):
            serve("preprocess", image_bytes=bad)
        return resident_kilobytes() - before

    grown_over(100)
    assert grown_over(100) < 2000  # an error that leaks costs some 5 KB an image: 12,000


def test_preprocess_gives_what_the_model_signature_takes(serve, mixed_images):
    images = serve("preprocess", image_bytes=tf.constant(MIXED))["images"]
    np.testing.assert_array_equal(images, mixed_images)
    classified = serve("classify", image_bytes=tf.constant(MIXED))
    outputs = serve("model", images=tf.constant(images))
    for name in ("logits", "probabilities"):
        np.testing.assert_array_equal(outputs[name][IS_GOOD], classified[name][IS_GOOD])


def test_embed_gives_vectors_and_tokens(serve, model, mixed_images):
    outputs = serve("embed", image_bytes=tf.constant(MIXED))
    expected = extract_features(model, mixed_images, ["pre_logits", "encoded"])
    for name, key in (("pre_logits", "pre_logits"), ("tokens", "encoded")):
        np.testing.assert_allclose(
            outputs[name][IS_GOOD], expected[key].numpy()[IS_GOOD], rtol=0, atol=1e-5
        )
    assert outputs["tokens"].shape[1:] == (2 + 3 + 16, 16)
    assert_blank(outputs, ~IS_GOOD)


def test_attention_gives_maps_and_their_rollout(serve):
    outputs = serve("attention", image_bytes=tf.constant(MIXED))
    assert outputs["maps"].shape[1:] == (2, 2, 21, 21)
    maps = outputs["maps"][IS_GOOD].astype(np.float64)
    np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=1e-5)
    first, second = np.moveaxis((maps.mean(axis=2) + np.eye(21)) / 2, 1, 0)
    readers = (second @ first)[:, :2, 5:].mean(axis=1)  # class and distillation token
    rollout = outputs["rollout"][IS_GOOD]
    np.testing.assert_allclose(rollout, readers.reshape(-1, 4, 4), rtol=1e-4)
    assert_blank(outputs, ~IS_GOOD)


def test_served_logits_are_the_mean_of_both_heads(serve, model, mixed_images):
    heads = extract_features(model, mixed_images, ["logits_class", "logits_dist"])
    assert np.abs(heads["logits_class"] - heads["logits_dist"]).max() > 1
    mean = (heads["logits_class"] + heads["logits_dist"]).numpy() / 2
    served = serve("classify", image_bytes=tf.constant(MIXED))["logits"]
    np.testing.assert_allclose(served[IS_GOOD], mean[IS_GOOD], rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(24, 32), (1, 1), (16, 16)])
def test_decoded_images_of_any_size_are_preprocessed_as_encoded_ones(serve, shape):
    pixels = np.random.default_rng(1).integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    encoded = [encode(Image.fromarray(image), "PNG") for image in pixels]
    expected = serve("classify", image_bytes=tf.constant(encoded))
    del expected["error"]
    for signature, dtype in (("image", tf.uint8), ("image_float", tf.float32)):
        outputs = serve(signature, images=tf.cast(pixels, dtype))
        for name in expected:
            np.testing.assert_array_equal(outputs[name], expected[name], err_msg=name)


def test_an_example_that_cannot_be_read_costs_its_own_row(serve):
    good = [example_of(bytes_feature(GOOD[kind])) for kind in ("jpeg", "png")]
    number = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
    unreadable = {
        b"no proto": "(8 bytes)",
        b"": "(0 bytes)",
        example_of(bytes_feature(GOOD["png"]), "image"): "bytes)",
        example_of(number): "bytes)",
        example_of(bytes_feature(GOOD["png"], GOOD["png"])): "bytes)",
    }
    empty = example_of(bytes_feature(b""))
    outputs = serve("tf_example", examples=tf.constant([good[0], *unreadable, empty, good[1]]))
    same = [GOOD["jpeg"], *[b""] * (len(unreadable) + 1), GOOD["png"]]
    expected = serve("classify", image_bytes=tf.constant(same))
    del expected["error"]
    for name in expected:
        np.testing.assert_array_equal(outputs[name], expected[name], err_msg=name)
    sentences = [error.decode() for error in outputs["error"][1:-1]]
    for sentence, end in zip(sentences, unreadable.values(), strict=False):
        assert sentence.startswith("not a tf.train.Example with one bytes value as image/encoded (")
        assert sentence.endswith(end)
    assert sentences[-1] == "the image is empty"
    assert_blank(outputs, outputs["error"] != b"")


@pytest.mark.parametrize(
    ("signature", "argument"),
    [("classify", "image_bytes"), ("tf_example", "examples"), ("embed", "image_bytes")],
)
def test_no_images_give_no_rows(serve, signature, argument):
    outputs = serve(signature, **{argument: tf.constant([], tf.string)})
    assert all(values.shape[0] == 0 for values in outputs.values())


def test_an_image_too_small_for_its_preprocessing_is_named(model, predict):
    module = ServingModule(model, predict, Preprocess("decode|central_crop(16)"), NAMES)
    outputs = module.preprocess(tf.constant([GOOD["1x1"], GOOD["png"]]))
    assert outputs["error"].numpy().tolist() == [
        b"an image of 1x1 pixels, which does not go through decode|central_crop(16)",
        b"",
    ]
