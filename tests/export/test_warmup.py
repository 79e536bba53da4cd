"""Warm-up requests are what a client would send, and every one of them is answered."""

import builtins

import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from vit_tf.export.saved_model_folder import read_signatures
from vit_tf.export.warmup import WARMUP_FILE, write_warmup_requests


@pytest.fixture(scope="module")
def requests(served_folder):
    records = tf.data.TFRecordDataset(str(served_folder / "1" / WARMUP_FILE))
    logs = [prediction_log_pb2.PredictionLog.FromString(r.numpy()) for r in records]
    assert {log.WhichOneof("log_type") for log in logs} == {"predict_log"}
    return [log.predict_log.request for log in logs]


def test_every_signature_that_takes_bytes_is_asked_for_one_image_and_for_a_batch(
    requests, served_folder
):
    takes_bytes = {
        name
        for name, signature in read_signatures(str(served_folder / "1")).items()
        if {spec.dtype for spec in signature.inputs.values()} == {tf.string.as_datatype_enum}
    }
    assert takes_bytes >= {"serving_default", "embed"}
    asked = [
        (request.model_spec.signature_name, tf.make_ndarray(value).shape)
        for request in requests
        for value in request.inputs.values()
    ]
    assert sorted(asked) == sorted((name, (n,)) for name in takes_bytes for n in (1, 8))
    assert {request.model_spec.name for request in requests} == {"digits"}
    assert len(requests) <= 1000


def test_the_loaded_model_answers_each_without_an_error(requests, served_folder):
    signatures = tf.saved_model.load(str(served_folder / "1")).signatures
    for request in requests:
        inputs = {name: tf.constant(tf.make_ndarray(v)) for name, v in request.inputs.items()}
        outputs = signatures[request.model_spec.signature_name](**inputs)
        assert set(outputs["error"].numpy()) == {b""}
        assert all(len(value) == len(*inputs.values()) for value in outputs.values())


def test_images_are_sent_as_jpeg(requests, digit_images):
    (request,) = (
        r
        for r in requests
        if r.model_spec.signature_name == "serving_default"
        and len(r.inputs["image_bytes"].string_val) == 1
    )
    jpeg = request.inputs["image_bytes"].string_val[0]
    assert tf.io.is_jpeg(jpeg)
    original = tf.io.decode_png(digit_images[0], channels=3)
    difference = tf.cast(tf.io.decode_jpeg(jpeg), tf.int32) - tf.cast(original, tf.int32)
    assert abs(difference.numpy()).mean() < 8


def test_fewer_images_than_a_batch_are_repeated(served_folder, digit_images, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes((served_folder / "1/saved_model.pb").read_bytes())
    written = write_warmup_requests(str(tmp_path), digit_images[:1], "one")
    assert written == len(list(tf.data.TFRecordDataset(str(tmp_path / WARMUP_FILE))))


@pytest.mark.parametrize(
    ("images", "message"), [([], "there are none"), ([b"no image"], "of 8 bytes that cannot be")]
)
def test_images_that_make_no_request_are_an_error(served_folder, images, message):
    with pytest.raises(ValueError, match=message):
        write_warmup_requests(str(served_folder / "1"), images, "digits")


def test_without_the_serving_api_an_export_goes_on_and_says_so(
    digit_images, tmp_path, monkeypatch, caplog
):
    found = builtins.__import__

    def without_serving_api(name, *arguments):
        if name.startswith("tensorflow_serving"):
            raise ImportError(name)
        return found(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_serving_api)
    assert write_warmup_requests(str(tmp_path), digit_images, "digits") == 0
    (record,) = caplog.records
    assert "pip install -e '.[serving]'" in record.getMessage()
    assert list(tmp_path.iterdir()) == []
