"""A test double of TensorFlow Serving's model server. It is not that server.

The server's binary cannot be installed where this project is developed and tested. So the clients
are tested against this program, which speaks the same protos over gRPC (`PredictionService.Predict`
and `GetModelMetadata`, `ModelService.GetModelStatus`) and the same JSON over REST, on loopback
only, and runs the real SavedModel with TensorFlow. It reads the same configuration files, runs the
model's warm-up requests when it loads it, and merges requests into batches if told to. Status codes
and messages are those of the server's sources. What it cannot show is how the server itself behaves
beyond them: its speed, its memory, its reloading of versions.

  python tests/export/serving_double.py --volume=<folder>:/models/digits \
    --model_config_file=/models/digits/model.config --port=0 --rest_api_port=0

Prints a line of JSON with both ports when it is ready. `--volume` stands for `docker run -v`.
"""

import argparse
import base64
import concurrent.futures
import http.server
import json
import re
import sys
import threading
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from served_model import Batching, Refused, ServedModel
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
PATH = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
    r"(?P<rest>:predict|/metadata)?"
)


class Models:
    """The versions that a `ModelServerConfig` asks for, loaded."""

    def __init__(self, config, local_path, batching=None):
        self._versions, self._labels = {}, {}
        for model in config.model_config_list.config:
            base = local_path(model.base_path)
            numbers = sorted(int(p.name) for p in base.iterdir() if p.name.isdigit())
            policy = model.model_version_policy
            if policy.HasField("specific"):
                wanted = [number for number in numbers if number in policy.specific.versions]
            else:
                wanted = numbers[-max(1, policy.latest.num_versions) :]
            self._versions[model.name] = {
                number: ServedModel(base / str(number), batching) for number in wanted
            }
            self._labels[model.name] = dict(model.version_labels)

    @property
    def warmed_up(self):
        """Warm-up requests answered, of all models."""
        return sum(model.warmed_up for found in self._versions.values() for model in found.values())

    def find(self, spec):
        """The version that a `ModelSpec` means: its number and the model."""
        found = self._versions.get(spec.name, {})
        if spec.WhichOneof("version_choice") == "version_label":
            if spec.version_label not in self._labels.get(spec.name, {}):
                message = f"Unrecognized servable version label: {spec.version_label}"
                raise Refused("INVALID_ARGUMENT", message)
            number = self._labels[spec.name][spec.version_label]
        elif spec.HasField("version"):
            number = spec.version.value
        else:
            number = max(found, default=None)
        if number not in found:
            wanted = f"Specific({spec.name}, {number})" if number else f"Latest({spec.name})"
            raise Refused("NOT_FOUND", f"Servable not found for request: {wanted}")
        return number, found[number]

    def status(self, spec):
        """A `GetModelStatusResponse`."""
        found = self._versions.get(spec.name)
        if not found:
            message = f"Could not find any versions of model {spec.name}"
            raise Refused("NOT_FOUND", message)
        response = get_model_status_pb2.GetModelStatusResponse()
        for number in found:
            status = response.model_version_status.add(version=number)
            status.state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        return response

    def metadata(self, spec):
        """A `GetModelMetadataResponse` with the names of the signatures."""
        number, model = self.find(spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = number
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name in model.signatures:
            method = "tensorflow/serving/predict"
            signatures.signature_def[name].method_name = method
        response.metadata["signature_def"].Pack(signatures)
        return response


def _guarded(method):
    """Answers a refusal with its status code, and anything else with INTERNAL."""

    def answer(self, request, context):
        try:
            return method(self, request)
        except Refused as refused:
            context.abort(grpc.StatusCode[refused.code], refused.message)
        except Exception as error:  # as the server does, of whatever kind it is
            context.abort(grpc.StatusCode.INTERNAL, repr(error))

    return answer


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata."""

    def __init__(self, models):
        self._models = models

    @_guarded
    def Predict(self, request):
        number, model = self._models.find(request.model_spec)
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        outputs = model.predict(request.model_spec.signature_name, inputs)
        response = predict_pb2.PredictResponse()
        response.model_spec.CopyFrom(request.model_spec)
        response.model_spec.version.value = number
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response

    @_guarded
    def GetModelMetadata(self, request):
        return self._models.metadata(request.model_spec)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus."""

    def __init__(self, models):
        self._models = models

    @_guarded
    def GetModelStatus(self, request):
        return self._models.status(request.model_spec)


def _rest_handler(models):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self._answer(self._get)

        def do_POST(self):
            self._answer(self._post)

        def log_message(self, *arguments):
            pass

        def _answer(self, method):
            match = PATH.fullmatch(self.path)
            try:
                if match is None:
                    raise Refused("INVALID_ARGUMENT", f"Malformed request: {self.path}")
                status, answer = 200, method(_spec(match), match["rest"])
            except Refused as refused:
                status, answer = HTTP_STATUS[refused.code], {"error": refused.message}
            except Exception as error:  # as above
                status, answer = 500, {"error": repr(error)}
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _get(self, spec, rest):
            if rest == "/metadata":
                response = models.metadata(spec)
                signatures = get_model_metadata_pb2.SignatureDefMap()
                response.metadata["signature_def"].Unpack(signatures)
                named = {
                    name: {"method_name": signature.method_name}
                    for name, signature in signatures.signature_def.items()
                }
                return {"metadata": {"signature_def": {"signature_def": named}}}
            status = models.status(spec).model_version_status
            return {
                "model_version_status": [
                    {"version": str(one.version), "state": one.State.Name(one.state)}
                    for one in status
                ]
            }

        def _post(self, spec, rest):
            content = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                request = json.loads(content)
            except ValueError as error:
                raise Refused("INVALID_ARGUMENT", f"JSON Parse error: {error}") from error
            _, model = models.find(spec)
            signature = request.get("signature_name", "serving_default")
            if signature not in model.signatures:
                raise Refused(
                    "INVALID_ARGUMENT",
                    f'Serving signature name: "{signature}" not found in signature def',
                )
            specs = model.signatures[signature].structured_input_signature[1]
            inputs = request["inputs"]
            if not isinstance(inputs, dict) or "b64" in inputs:
                inputs = {next(iter(specs)): inputs}
            arrays = {
                name: np.array(_decoded(values), specs[name].dtype.as_numpy_dtype)
                for name, values in inputs.items()
            }
            outputs = model.predict(signature, arrays)
            return {"outputs": {name: _plain(value) for name, value in outputs.items()}}

    return Handler


def _spec(match):
    spec = predict_pb2.PredictRequest().model_spec
    spec.name = match["name"]
    if match["version"]:
        spec.version.value = int(match["version"])
    if match["label"]:
        spec.version_label = match["label"]
    return spec


def _decoded(values):
    """Nested lists with `{"b64": ...}` as bytes."""
    if isinstance(values, list):
        return [_decoded(value) for value in values]
    return base64.b64decode(values["b64"]) if isinstance(values, dict) else values


def _plain(value):
    if value.dtype == object:
        return np.vectorize(bytes.decode, otypes=[object])(value).tolist()
    # The shortest decimal that reads back as the same float32, as the server writes it.
    if value.dtype == np.float32:
        return value.astype(str).astype(float).tolist()
    return value.tolist()


class ServingDouble:
    """Serves models on loopback, on ports of its own, until it is closed."""

    def __init__(self, models, port=0, rest_port=0, threads=64):
        self._grpc = grpc.server(
            concurrent.futures.ThreadPoolExecutor(threads),
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ],
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            PredictionService(models), self._grpc
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(models), self._grpc)
        self.port = self._grpc.add_insecure_port(f"127.0.0.1:{port}")
        self._rest = http.server.ThreadingHTTPServer(
            ("127.0.0.1", rest_port), _rest_handler(models)
        )
        self._rest.daemon_threads = True
        self._rest.handle_error = lambda *arguments: None  # a client that went away
        self.rest_port = self._rest.server_address[1]
        self._grpc.start()
        threading.Thread(target=self._rest.serve_forever, daemon=True).start()

    @property
    def addresses(self):
        """As a client names them, gRPC and REST."""
        return f"grpc://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.rest_port}"

    def close(self):
        self._grpc.stop(None).wait()
        self._rest.shutdown()
        self._rest.server_close()


def models_of(config_file, volume, batching_parameters_file=None):
    """What a `model.config` asks for; `volume` is folder:path, as in `docker run -v`."""
    folder, mounted = volume.removesuffix(":ro").rsplit(":", 1)

    def local_path(path):
        return Path(folder) / Path(path).relative_to(mounted)

    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse(local_path(config_file).read_text(), config)
    batching = None
    if batching_parameters_file:
        batching = Batching.read(local_path(batching_parameters_file))
    return Models(config, local_path, batching)


def main():
    """Serves until standard input ends or the process is killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volume", required=True)
    parser.add_argument("--model_config_file", required=True)
    parser.add_argument("--enable_batching", action="store_true")
    parser.add_argument("--batching_parameters_file")
    parser.add_argument("--monitoring_config_file")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rest_api_port", type=int, default=0)
    flags = parser.parse_args()
    batching = flags.batching_parameters_file if flags.enable_batching else None
    models = models_of(flags.model_config_file, flags.volume, batching)
    double = ServingDouble(models, flags.port, flags.rest_api_port)
    ready = {"port": double.port, "rest_port": double.rest_port, "warmed_up": models.warmed_up}
    print(json.dumps(ready), flush=True)
    sys.stdin.read()
    double.close()


if __name__ == "__main__":
    main()
