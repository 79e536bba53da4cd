"""How a request reaches a TensorFlow Serving server: by gRPC or by REST."""

import base64
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import tensorflow as tf

_UNLIMITED = -1
# A channel that lost its server asks again this soon, and not after up to two minutes.
_RECONNECT_MS = 500


class CallFailed(Exception):
    """A call that the server refused or never got.

    Args:
      code: the name of a `grpc.StatusCode`, such as `"UNAVAILABLE"`.
      message: what the server, or the network, says.
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


class GrpcTransport:
    """Calls a server's `PredictionService` and `ModelService`.

    Args:
      address: host:port.
      model: the served model's name.
      version: its number, or a label; None for the newest.

    Raises:
      ImportError: if `tensorflow-serving-api` is not installed.
    """

    def __init__(self, address: str, model: str, version: int | str | None):
        try:
            from tensorflow_serving.apis import (
                get_model_metadata_pb2,
                get_model_status_pb2,
                model_service_pb2_grpc,
                predict_pb2,
                prediction_service_pb2_grpc,
            )
        except ImportError as error:
            raise ImportError(
                "a server's gRPC needs tensorflow-serving-api: pip install -e '.[serving]'; or use "
                "its REST: http://host:8501"
            ) from error
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_send_message_length", _UNLIMITED),
                ("grpc.max_receive_message_length", _UNLIMITED),
                ("grpc.initial_reconnect_backoff_ms", _RECONNECT_MS),
                ("grpc.min_reconnect_backoff_ms", _RECONNECT_MS),
                ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS),
            ],
        )
        self._prediction = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._predict_request = predict_pb2.PredictRequest
        self._status_request = get_model_status_pb2.GetModelStatusRequest
        self._metadata_request = get_model_metadata_pb2.GetModelMetadataRequest
        self._signature_map = get_model_metadata_pb2.SignatureDefMap
        self._model, self._version = model, version

    def predict(
        self, signature: str, images: Sequence[bytes], timeout: float
    ) -> dict[str, np.ndarray]:
        """Outputs of a signature that takes `image_bytes`, by name; strings as bytes."""
        request = self._of_version(self._predict_request())
        request.model_spec.signature_name = signature
        request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(list(images), tf.string))
        response = self._call(self._prediction.Predict, request, timeout)
        return {name: tf.make_ndarray(value) for name, value in response.outputs.items()}

    def versions(self, timeout: float) -> dict[int, str]:
        """The state of each version of the model, such as `"AVAILABLE"`."""
        request = self._status_request()
        request.model_spec.name = self._model
        response = self._call(self._models.GetModelStatus, request, timeout)
        return {
            status.version: status.State.Name(status.state)
            for status in response.model_version_status
        }

    def signatures(self, timeout: float) -> list[str]:
        """Names of the model's signatures."""
        request = self._of_version(self._metadata_request(metadata_field=["signature_def"]))
        response = self._call(self._prediction.GetModelMetadata, request, timeout)
        found = self._signature_map()
        response.metadata["signature_def"].Unpack(found)
        return sorted(found.signature_def)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _of_version(self, request: Any) -> Any:
        request.model_spec.name = self._model
        if isinstance(self._version, int):
            request.model_spec.version.value = self._version
        elif self._version is not None:
            request.model_spec.version_label = self._version
        return request

    @staticmethod
    def _call(method: Any, request: Any, timeout: float) -> Any:
        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as error:
            raise CallFailed(error.code().name, error.details()) from error


class RestTransport:
    """Calls a server's REST addresses.

    Args:
      address: http://host:port, or https; a path before `/v1/models` may follow.
      model: the served model's name.
      version: its number, or a label; None for the newest.
    """

    def __init__(self, address: str, model: str, version: int | str | None):
        self._model_address = f"{address.rstrip('/')}/v1/models/{model}"
        kind = "versions" if isinstance(version, int) else "labels"
        self._address = self._model_address + ("" if version is None else f"/{kind}/{version}")

    def predict(
        self, signature: str, images: Sequence[bytes], timeout: float
    ) -> dict[str, np.ndarray]:
        """Outputs of a signature that takes `image_bytes`, by name; strings as bytes."""
        inputs = [{"b64": base64.b64encode(image).decode()} for image in images]
        request = {"signature_name": signature, "inputs": inputs}
        answer = self._call(f"{self._address}:predict", timeout, request)
        return {name: _array(values) for name, values in _field(answer, "outputs").items()}

    def versions(self, timeout: float) -> dict[int, str]:
        """The state of each version of the model, such as `"AVAILABLE"`."""
        answer = self._call(self._model_address, timeout)
        found = _field(answer, "model_version_status")
        return {int(status["version"]): status["state"] for status in found}

    def signatures(self, timeout: float) -> list[str]:
        """Names of the model's signatures."""
        answer = self._call(f"{self._address}/metadata", timeout)
        return sorted(_field(answer, "metadata")["signature_def"]["signature_def"])

    def close(self) -> None:
        """Does nothing: each call has a connection of its own."""

    @staticmethod
    def _call(address: str, timeout: float, content: Mapping[str, Any] | None = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise CallFailed(_code_of(error.code), _error_message(error)) from error
        except ValueError as error:
            raise CallFailed("UNKNOWN", f"the answer is not JSON: {error}") from error
        except TimeoutError as error:
            raise CallFailed("DEADLINE_EXCEEDED", "no answer in time") from error
        except urllib.error.URLError as error:
            timed_out = isinstance(error.reason, TimeoutError)
            code = "DEADLINE_EXCEEDED" if timed_out else "UNAVAILABLE"
            raise CallFailed(code, str(error.reason)) from error
        except (OSError, http.client.HTTPException) as error:  # the connection broke off
            raise CallFailed("UNAVAILABLE", repr(error)) from error


def _code_of(status: int) -> str:
    """The code that TensorFlow Serving makes this HTTP status of."""
    codes = {
        400: "INVALID_ARGUMENT",
        404: "NOT_FOUND",
        429: "RESOURCE_EXHAUSTED",
        503: "UNAVAILABLE",
        504: "DEADLINE_EXCEEDED",
    }
    return codes.get(status, "UNKNOWN")


def _error_message(error: urllib.error.HTTPError) -> str:
    try:
        return json.load(error)["error"]
    except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
        return f"HTTP status {error.code} {error.reason}"


def _field(answer: Any, name: str) -> Any:
    if not isinstance(answer, dict) or name not in answer:
        raise CallFailed("UNKNOWN", f"the answer has no {name!r}; TensorFlow Serving's would")
    return answer[name]


def _array(values: Any) -> np.ndarray:
    """A tensor of JSON numbers or strings, with the types that gRPC would give."""
    array = np.array(values)
    if array.dtype.kind == "U":
        encoded = [text.encode() for text in array.ravel()]
        return np.array(encoded, object).reshape(array.shape)
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32)
