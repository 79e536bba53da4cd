"""The files beside a model with which TensorFlow Serving's container serves it."""

import hashlib
import os
import re
from collections.abc import Mapping

import tensorflow as tf
from absl import logging

_MARK = "# Written with the export; an edited file is kept as it is. Checksum: "
_IMAGE = "tensorflow/serving:2.20.0"
_MOST_ROWS_OF_A_REQUEST = 1024
_ROWS_OF_A_BATCH = 32


def write_serving_files(
    export_dir: str, name: str, labels: Mapping[str, int] | None = None
) -> list[str]:
    """Writes `model.config`, `batching_parameters.txt`, `monitoring.config` and `README.txt`.

    The first three are text protos of TensorFlow Serving's (`ModelServerConfig`,
    `BatchingParameters`, `MonitoringConfig`); `README.txt` has the commands to start the official
    container and to ask it. Each file appears whole or not at all. One that was edited since it was
    written is left as it is, and a line of the log says so; remove it to have it written anew.

    Args:
      export_dir: folder of the numbered exports, local or remote.
      name: under which clients ask for the model.
      labels: version numbers by label, such as `{"stable": 3, "canary": 4}`; those versions are
        served then. Default: the newest one is served, also when it appears later.

    Returns:
      Paths of the edited files that were kept.

    Raises:
      ValueError: if the name cannot stand in an address, or a labelled version is not there.
    """
    labels = dict(labels or {})
    for word in (name, *labels):
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", word):
            raise ValueError(
                "a served model's name or label is letters, digits, '_', '-' and '.', since it "
                f"stands in addresses; got {word!r}"
            )
    for label, version in labels.items():
        if not tf.io.gfile.isdir(os.path.join(export_dir, str(version))):
            raise ValueError(f"label {label!r} names version {version}: not in {export_dir}")
    contents = {
        "model.config": _model_config(name, labels),
        "batching_parameters.txt": _batching_parameters(),
        "monitoring.config": _MONITORING,
        "README.txt": _readme(name, bool(labels)),
    }
    written = {os.path.join(export_dir, file): text for file, text in contents.items()}
    return [path for path, text in written.items() if not _write_unless_edited(path, text)]


def _write_unless_edited(path: str, content: str) -> bool:
    """Returns whether the file now has the content: not if somebody edited it."""
    text = _marked(content)
    if tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path) as file:
            found = file.read()
        if found == text:
            return True
        if found != _marked(found.partition("\n")[2]):
            logging.warning("kept as it was edited: %s; remove it to have it written anew", path)
            return False
    aside = f"{path}.incomplete-{os.getpid()}"
    try:
        with tf.io.gfile.GFile(aside, "w") as file:
            file.write(text)
        tf.io.gfile.rename(aside, path, overwrite=True)
    finally:
        if tf.io.gfile.exists(aside):
            tf.io.gfile.remove(aside)
    return True


def _marked(content: str) -> str:
    """The content below a line that tells whether it was edited since."""
    return f"{_MARK}{hashlib.sha256(content.encode()).hexdigest()[:16]}\n{content}"


def _model_config(name: str, labels: Mapping[str, int]) -> str:
    if labels:
        versions = " ".join(f"versions: {version}" for version in sorted(set(labels.values())))
        policy = f"specific {{ {versions} }}"
    else:
        policy = "latest { num_versions: 1 }"
    named = "".join(
        f'    version_labels {{ key: "{label}" value: {version} }}\n'
        for label, version in sorted(labels.items())
    )
    return f"""\
# ModelServerConfig. The base path is this folder as the container sees it.
model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
    model_version_policy {{ {policy} }}
{named}  }}
}}
"""


def _batching_parameters() -> str:
    return f"""\
# BatchingParameters, read with --enable_batching: requests of several clients run as one batch.
# A request may have this many images; more are refused.
max_batch_size {{ value: {_MOST_ROWS_OF_A_REQUEST} }}
# What runs at once; larger requests are split.
enable_large_batch_splitting {{ value: true }}
max_execution_batch_size {{ value: {_ROWS_OF_A_BATCH} }}
# How long the first request waits for others, in microseconds. 0 may be best on a CPU.
batch_timeout_micros {{ value: 1000 }}
# Batches at once: the number of CPU cores is a good start.
num_batch_threads {{ value: 4 }}
# A full queue refuses requests as UNAVAILABLE; the clients here try those again.
max_enqueued_batches {{ value: 1000 }}
"""


_MONITORING = """\
# MonitoringConfig: counts and latencies for Prometheus, at this path of the REST port.
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""


def _readme(name: str, labelled: bool) -> str:
    labels = " \\\n  --allow_version_labels_for_unavailable_models" if labelled else ""
    return f"""\

This folder holds numbered versions of the model {name!r} for TensorFlow Serving.


Start the server, in this folder:

docker run --rm -p 8500:8500 -p 8501:8501 \\
  -v "$PWD":/models/{name}:ro \\
  {_IMAGE} \\
  --model_config_file=/models/{name}/model.config \\
  --enable_batching \\
  --batching_parameters_file=/models/{name}/batching_parameters.txt \\
  --monitoring_config_file=/models/{name}/monitoring.config{labels}


Is it there?

curl http://localhost:8501/v1/models/{name}


Classify an image (REST, port 8501):

echo "{{\\"inputs\\": [{{\\"b64\\": \\"$(base64 < photo.jpg | tr -d '\\n')\\"}}]}}" |
  curl -d @- http://localhost:8501/v1/models/{name}:predict


Classify an image (gRPC, port 8500; pip install tensorflow tensorflow-serving-api grpcio):

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

channel = grpc.insecure_channel("localhost:8500")
request = predict_pb2.PredictRequest()
request.model_spec.name = "{name}"
with open("photo.jpg", "rb") as file:
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([file.read()], tf.string))
response = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)
for output in ("top_names", "top_probabilities", "error"):
    print(output, tf.make_ndarray(response.outputs[output])[0])


With vit_tf:

python tools/predict.py --server=grpc://localhost:8500 --served_model={name} photo.jpg
python tools/predict.py --server=http://localhost:8501 --served_model={name} photo.jpg


An image that cannot be read never fails a request: its row of the output "error" says why. With
--enable_batching the signatures "image" and "image_float" take images of one size only, since
requests of several clients become one tensor; those that take bytes take any.
"""
