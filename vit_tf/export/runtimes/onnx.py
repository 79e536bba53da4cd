"""ONNX by tf2onnx, run by onnxruntime."""

import logging
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from vit_tf.export.runtimes.base import TOLERANCES, Kind, Run
from vit_tf.export.runtimes.served_model import ServedModel

_FILE = "model.onnx"
_OPSET = 18  # the newest that tf2onnx 1.17 writes


def _write(served: ServedModel, folder: str, images: Sequence[np.ndarray]) -> dict[str, object]:
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    spec = tf.TensorSpec([None, *served.image_shape], tf.float32, name="images")
    function = tf.function(lambda images: served.function(images=images))
    model, _ = tf2onnx.convert.from_function(function, [spec], opset=_OPSET)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    with open(os.path.join(folder, _FILE), "wb") as file:
        file.write(model.SerializeToString())
    return {"converter": f"tf2onnx {tf2onnx.__version__}", "opset": _OPSET}


def _open(folder: str, num_threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(
        os.path.join(folder, _FILE), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))


KINDS = (
    Kind(
        name="onnx",
        extra="onnx",
        packages=("tf2onnx", "onnx", "onnxruntime"),
        write=_write,
        open=_open,
        tolerance=TOLERANCES["float32"],
    ),
)
