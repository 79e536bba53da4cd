"""Requests that TensorFlow Serving answers while it loads a model: the first client is not slow.

See "SavedModel Warmup" in TensorFlow Serving's documentation: records of `PredictionLog`, at most
1,000, in `assets.extra/tf_serving_warmup_requests`. A request that fails there keeps the server
from loading the model, so these are made of images that the model was evaluated on.
"""

import os
from collections.abc import Iterator, Mapping, Sequence

import tensorflow as tf
from absl import logging
from tensorflow.core.protobuf import meta_graph_pb2

from vit_tf.data.decode import decode_image
from vit_tf.export.row_errors import encoded_example
from vit_tf.export.saved_model_folder import read_signatures

WARMUP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
# One image, as an interactive client sends them, and a small batch, as batching merges them. More
# than a server's largest batch would fail.
_BATCH_SIZES = (1, 8)
_JPEG_QUALITY = 95


def write_warmup_requests(saved_model: str, images: Sequence[bytes], model_name: str) -> int:
    """Writes requests for every signature of a SavedModel that takes encoded images.

    Without `tensorflow-serving-api` nothing is written, and a line of the log says so.

    Args:
      saved_model: folder of the SavedModel, local or remote.
      images: encoded images of the evaluation, at least one; they are sent as JPEG, as most clients
        send theirs.
      model_name: under which the server will serve it.

    Returns:
      How many requests were written.

    Raises:
      ValueError: if there is no image, or one that cannot be decoded.
    """
    if not images:
        raise ValueError("warm-up requests are made of evaluation images, and there are none")
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError:
        logging.warning(
            "no warm-up requests for TensorFlow Serving were written: they need pip install -e "
            "'.[serving]'"
        )
        return 0
    jpegs = [_as_jpeg(image) for image in images[: max(_BATCH_SIZES)]]
    signatures = read_signatures(saved_model)
    path = os.path.join(saved_model, WARMUP_FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    count = 0
    with tf.io.TFRecordWriter(path) as writer:
        for name, feeds in _feeds(signatures, jpegs):
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.name = model_name
            request.model_spec.signature_name = name
            for argument, rows in feeds.items():
                request.inputs[argument].CopyFrom(tf.make_tensor_proto(rows, tf.string))
            writer.write(log.SerializeToString())
            count += 1
    return count


def _feeds(
    signatures: Mapping[str, meta_graph_pb2.SignatureDef], jpegs: Sequence[bytes]
) -> Iterator[tuple[str, dict[str, list[bytes]]]]:
    """What to send to each signature that takes images as bytes, in each batch size."""
    as_argument = {"image_bytes": lambda jpeg: jpeg, "examples": encoded_example}
    for name, signature in signatures.items():
        (argument,) = signature.inputs if len(signature.inputs) == 1 else [None]
        if argument in as_argument:
            rows = [as_argument[argument](jpeg) for jpeg in jpegs]
            for size in _BATCH_SIZES:
                yield name, {argument: [rows[i % len(rows)] for i in range(size)]}


def _as_jpeg(image: bytes) -> bytes:
    try:
        return tf.io.encode_jpeg(decode_image(image), quality=_JPEG_QUALITY).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(
            f"no warm-up request from an image of {len(image)} bytes that cannot be decoded: "
            f"{error.message}"
        ) from error
