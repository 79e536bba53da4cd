"""LiteRT (TensorFlow Lite), with its built-in operations alone."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from vit_tf.export.runtimes.base import TOLERANCES, Kind, Run
from vit_tf.export.runtimes.litert_gelu import with_known_gelu
from vit_tf.export.runtimes.served_model import ServedModel

_FILE = "model.tflite"

# Stay in float32 under `int8`: products, convolutions, GELU and softmax are what takes time. Sums
# over blocks and variances span too many magnitudes for 8 bits (a ViT's class token is far from its
# patches), and what 8-bit BROADCAST_TO makes of a class token is another one.
_NOT_IN_INT8 = (
    "ADD",
    "BROADCAST_TO",
    "MEAN",
    "MUL",
    "NEG",
    "RSQRT",
    "SQUARE",
    "SQUARED_DIFFERENCE",
    "SUB",
)


def _write(
    served: ServedModel, folder: str, images: Sequence[np.ndarray], precision: str
) -> dict[str, object]:
    # Keras 3's variables are not frozen by `from_saved_model`, and read as nothing there.
    function = with_known_gelu(served.function)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    with open(os.path.join(folder, _FILE), "wb") as file:
        file.write(_as_int8(converter, images) if precision == "int8" else converter.convert())
    return {"converter": f"tensorflow {tf.__version__}"}


def _as_int8(converter: tf.lite.TFLiteConverter, images: Sequence[np.ndarray]) -> bytes:
    """Returns the model with 8-bit activations, whose ranges are those that images give."""

    def calibration() -> Iterator[list[np.ndarray]]:
        for image in images:
            yield [image[None]]

    converter.representative_dataset = calibration
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=list(_NOT_IN_INT8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the interpreter that it takes
        # The converter alone cannot leave operations out; what it calls a debugger can.
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=calibration, debug_options=options
        )
        return debugger.get_nondebug_quantized_model()


def _writer(precision: str) -> Callable[..., dict[str, object]]:
    return lambda served, folder, images: _write(served, folder, images, precision)


def _open(folder: str, num_threads: int) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(os.path.join(folder, _FILE), num_threads=num_threads)
    run = interpreter.get_signature_runner()
    # The runner's arrays are the interpreter's memory, which its next run overwrites.
    return lambda images: {name: values.copy() for name, values in run(images=images).items()}


def _kind(precision: str, tolerance: float | None, needs_images: bool = False) -> Kind:
    return Kind(
        name=f"litert_{precision}",
        extra="litert",
        packages=("ai_edge_litert",),
        write=_writer(precision),
        open=_open,
        tolerance=tolerance,
        needs_images=needs_images,
    )


KINDS = (
    _kind("float32", TOLERANCES["float32"]),
    _kind("float16", TOLERANCES["float16"]),  # weights alone are rounded
    _kind("dynamic_int8", None),
    _kind("int8", None, needs_images=True),
)
