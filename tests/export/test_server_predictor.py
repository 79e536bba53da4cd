"""A served model answers as the SavedModel itself does, and says what is wrong when it cannot."""

import builtins
import http.server
import socket
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
from served_model import Refused
from serving_double import ServingDouble, models_of

from vit_tf.export.predictors.base import Prediction
from vit_tf.export.predictors.server import ServerPredictor

KINDS = ["grpc", "http"]


@pytest.fixture(scope="module")
def models(served_folder):
    volume = f"{served_folder}:/models/digits"
    return models_of(
        "/models/digits/model.config", volume, "/models/digits/batching_parameters.txt"
    )


@pytest.fixture(scope="module")
def addresses(models):
    double = ServingDouble(models)
    yield dict(zip(KINDS, double.addresses, strict=True))
    double.close()


@pytest.fixture(scope="module")
def signatures(served_folder):
    return tf.saved_model.load(str(served_folder / "1")).signatures


@pytest.fixture(params=KINDS)
def predictor(request, addresses):
    predictor = ServerPredictor(addresses[request.param], "digits")
    yield predictor
    predictor.close()


@pytest.fixture
def unused_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]  # bound, but nothing listens


def test_the_warm_up_requests_were_answered(models, served_folder):
    assert models.warmed_up >= 4


@pytest.mark.parametrize("signature", ["serving_default", "classify", "embed", "preprocess"])
def test_outputs_are_those_of_the_saved_model_with_their_types(
    predictor, signatures, digit_images, signature
):
    images = [*digit_images[:3], b"no image", b"", digit_images[3] + b"\0\0"]
    expected = signatures[signature](image_bytes=tf.constant(images))
    outputs = predictor.outputs(signature, images)
    assert set(outputs) == set(expected)
    for name, value in expected.items():
        value = value.numpy()
        assert (outputs[name].dtype, outputs[name].shape) == (value.dtype, value.shape), name
        np.testing.assert_array_equal(outputs[name], value, err_msg=name)


def test_a_request_larger_than_a_batch_is_answered_in_order(predictor, signatures, digit_images):
    images = (digit_images * 5)[:70]
    expected = signatures["serving_default"](image_bytes=tf.constant(images))
    outputs = predictor.outputs("serving_default", images)
    np.testing.assert_allclose(outputs["logits"], expected["logits"], rtol=0, atol=1e-5)


def test_an_image_that_cannot_be_read_costs_only_its_own_prediction(predictor, digit_images):
    first, bad, last = predictor.classify([digit_images[0], b"no image", digit_images[1]])
    assert first.error is None
    assert len(first.names) == len(last.probabilities) == 5
    assert bad == Prediction(error=bad.error)
    assert bad.error


@pytest.mark.parametrize("version", [1, "1", None])
def test_a_version_can_be_asked_for(addresses, digit_images, version):
    for address in addresses.values():
        (prediction,) = ServerPredictor(address, "digits", version).classify(digit_images[:1])
        assert prediction.error is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("model", "version", "message"),
    [
        ("digit", None, "refuses: NOT_FOUND: Could not find any versions of model digit"),
        ("digits", 7, "model 'digits', version 7: versions there: 1 AVAILABLE"),
        ("digits", "stable", "version labelled stable.* Unrecognized servable version label"),
    ],
)
def test_what_the_server_does_not_have_is_named(
    addresses, digit_images, kind, model, version, message
):
    with pytest.raises(ValueError, match=message):
        ServerPredictor(addresses[kind], model, version).classify(digit_images[:1])


def test_a_misspelt_signature_is_answered_with_the_closest(predictor, digit_images):
    with pytest.raises(ValueError, match="no signature 'embedd'. Did you mean 'embed'.*classify"):
        predictor.outputs("embedd", digit_images[:1])
    with pytest.raises(ValueError, match="has no signature 'attention'. It has classify"):
        predictor.attention(digit_images[:1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_is_slow_is_told_by_its_deadline(
    addresses, models, digit_images, monkeypatch, kind
):
    monkeypatch.setattr(models, "find", lambda spec: time.sleep(2))
    with pytest.raises(TimeoutError, match="did not answer within 0.5 s"):
        ServerPredictor(addresses[kind], "digits", timeout=0.5).classify(digit_images[:1])


@pytest.mark.parametrize("kind", KINDS)
def test_where_nothing_listens_the_address_is_named_after_a_bounded_time(
    digit_images, unused_port, kind
):
    address = f"{kind}://127.0.0.1:{unused_port}"
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=f"{address}, model 'model'.* for 0.5 s.*8501"):
        ServerPredictor(address, retry_for=0.5).classify(digit_images[:1])
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_protocols_port_is_an_error_that_names_both(addresses, digit_images, kind):
    other = addresses[KINDS[1 - KINDS.index(kind)]].partition("://")[2]
    with pytest.raises(ConnectionError, match="gRPC on port 8500, REST on 8501"):
        ServerPredictor(f"{kind}://{other}", "digits", retry_for=0.3).classify(digit_images[:1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_busy_server_is_asked_again(addresses, models, digit_images, monkeypatch, kind):
    find, refusals = models.find, [Refused("UNAVAILABLE", "The queue is full")] * 3

    def busy_at_first(spec):
        if refusals:
            raise refusals.pop()
        return find(spec)

    monkeypatch.setattr(models, "find", busy_at_first)
    predictor = ServerPredictor(addresses[kind], "digits")
    assert predictor.classify(digit_images[:1])[0].error is None
    assert not refusals


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_still_loads_is_waited_for(addresses, models, digit_images, monkeypatch, kind):
    find, status, loading = models.find, models.status, [True] * 3

    def not_yet(spec):
        if loading:
            loading.pop()
            raise Refused("NOT_FOUND", "Servable not found for request: Latest(digits)")
        return find(spec)

    def says_loading(spec):
        response = status(spec)
        response.model_version_status[0].state = 20  # LOADING
        return response

    monkeypatch.setattr(models, "find", not_yet)
    monkeypatch.setattr(models, "status", says_loading)
    predictor = ServerPredictor(addresses[kind], "digits")
    assert predictor.classify(digit_images[:1])[0].error is None


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"<html>", "the answer is not JSON"), (b"[1]", "no 'outputs'; TensorFlow Serving's would")],
)
def test_something_else_that_speaks_http_is_told_apart(digit_images, content, message):
    class Other(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(ValueError, match=f"refuses: UNKNOWN: .*{message}"):
            ServerPredictor(address).classify(digit_images[:1])


@pytest.mark.parametrize(
    "address", ["", "host", "grpc://host", "host:port", "ftp://host:21", "://"]
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match="no address of a server: .*grpc://host:8500 or http://"):
        ServerPredictor(address)


def test_host_and_port_mean_grpc(addresses, digit_images):
    predictor = ServerPredictor(addresses["grpc"].removeprefix("grpc://"), "digits")
    assert predictor.classify(digit_images[:1])[0].error is None
    assert "model 'digits', the newest version" in predictor.describe()


def test_without_the_serving_api_rest_works_and_grpc_names_the_extra(
    addresses, digit_images, monkeypatch
):
    found = builtins.__import__

    def without_serving_api(name, *arguments):
        if name.startswith("tensorflow_serving"):
            raise ImportError(name)
        return found(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without_serving_api)
    with pytest.raises(ImportError, match=r"pip install -e '.\[serving\]'; or use its REST"):
        ServerPredictor(addresses["grpc"], "digits")
    predictor = ServerPredictor(addresses["http"], "digits")
    assert predictor.classify(digit_images[:1])[0].error is None


def test_messages_may_be_larger_than_grpc_allows_by_default(addresses, digit_images):
    padded = digit_images[0] + bytes(6 * 2**20)  # the default is 4 MiB
    (prediction,) = ServerPredictor(addresses["grpc"], "digits").classify([padded])
    assert prediction.error is None
