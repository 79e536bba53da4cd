"""OpenVINO, which reads the SavedModel's function, in float32 and bfloat16."""

import os
from collections.abc import Callable, Sequence

import numpy as np

from vit_tf.export.runtimes.base import TOLERANCES, Kind, Run
from vit_tf.export.runtimes.served_model import ServedModel

_FILE = "model.xml"  # the weights lie beside it in model.bin


def _write(served: ServedModel, folder: str, images: Sequence[np.ndarray]) -> dict[str, object]:
    import openvino

    model = openvino.convert_model(served.function)
    # Weights stay in float32: the precision to compute in is chosen when the model is opened.
    openvino.save_model(model, os.path.join(folder, _FILE), compress_to_fp16=False)
    return {"converter": f"openvino {openvino.__version__}"}


def _opener(precision: str) -> Callable[[str, int], Run]:
    def open_model(folder: str, num_threads: int) -> Run:
        import openvino

        # Without the hint OpenVINO computes in bfloat16 where the processor can.
        compiled = openvino.Core().compile_model(
            os.path.join(folder, _FILE),
            "CPU",
            {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": num_threads},
        )
        names = [output.get_any_name() for output in compiled.outputs]

        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            outputs = compiled(images)
            return {name: outputs[name].copy() for name in names}

        return run

    return open_model


def _kind(name: str, precision: str, tolerance: float) -> Kind:
    return Kind(
        name=name,
        extra="openvino",
        packages=("openvino",),
        write=_write,
        open=_opener(precision),
        tolerance=tolerance,
    )


KINDS = (
    _kind("openvino", "f32", TOLERANCES["float32"]),
    _kind("openvino_bf16", "bf16", TOLERANCES["bfloat16"]),
)
