"""A client that knows TensorFlow Serving's protos and nothing of this project.

  python tests/export/proto_client.py <host:port> <model> <folder> <requests> <threads>

The folder holds images, one a file, and `expected.json`: what each of them must be answered with.
Sends requests of one to four images, many at once, and checks each row. Prints a line of JSON after
each tenth of the requests, and waits then for a line on standard input.
"""

import collections
import concurrent.futures
import json
import random
import sys
import time
from pathlib import Path

import grpc
import numpy as np
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

TOLERANCE = 1e-5  # rows are computed in batches with other clients' rows
NUMBERS = {types_pb2.DT_FLOAT: ("<f4", "float_val"), types_pb2.DT_INT32: ("<i4", "int_val")}


def array(tensor):
    """A `TensorProto` as numpy."""
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    if tensor.dtype == types_pb2.DT_STRING:
        values = np.array(list(tensor.string_val), object)
    else:
        kind, field = NUMBERS[tensor.dtype]
        values = np.frombuffer(tensor.tensor_content, kind)
        if not tensor.tensor_content:
            values = np.array(getattr(tensor, field), kind)
    # Values that repeat at the end may be left out.
    missing = int(np.prod(shape)) - len(values)
    return np.concatenate([values, values[-1:].repeat(missing)]).reshape(shape)


def wrong(outputs, row, expected):
    """The names of the outputs that are not as expected."""
    found = {name: outputs[name][row] for name in ("logits", "top_ids", "top_names", "error")}
    names = [name.decode() for name in found["top_names"]]
    checks = {
        "logits": np.abs(found["logits"] - expected["logits"]).max() <= TOLERANCE,
        "top_ids": found["top_ids"].tolist() == expected["top_ids"],
        "top_names": names == expected["top_names"],
        "error": found["error"].decode() == expected["error"],
    }
    return [name for name, holds in checks.items() if not holds]


def main(address, model, folder, requests, threads):
    sys.modules["vit_tf"] = None  # any import of it fails
    expected = json.loads((Path(folder) / "expected.json").read_text())
    images = {name: (Path(folder) / name).read_bytes() for name in expected}
    names = sorted(images)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(address))
    counts, seen = collections.Counter(), []

    def ask(number):
        """The names of the images asked for, and what is wrong with their answers."""
        chosen = random.Random(number).choices(names, k=1 + number % 4)
        request = predict_pb2.PredictRequest()
        request.model_spec.name = model
        tensor = request.inputs["image_bytes"]
        tensor.dtype = types_pb2.DT_STRING
        tensor.tensor_shape.dim.add(size=len(chosen))
        tensor.string_val.extend(images[name] for name in chosen)
        try:
            response = stub.Predict(request, timeout=120)
        except grpc.RpcError as error:
            return chosen, [f"{error.code()}: {error.details()}"]
        outputs = {name: array(value) for name, value in response.outputs.items()}
        if {len(value) for value in outputs.values()} != {len(chosen)}:
            return chosen, ["rows"]
        return chosen, [
            f"{name}: {key}"
            for row, name in enumerate(chosen)
            for key in wrong(outputs, row, expected[name])
        ]

    with concurrent.futures.ThreadPoolExecutor(int(threads)) as pool:
        for tenth in np.array_split(np.arange(int(requests)), 10):
            start = time.monotonic()
            for chosen, problems in pool.map(ask, tenth.tolist()):
                counts["answered"] += 1
                counts["images"] += len(chosen)
                counts["unreadable"] += sum(bool(expected[name]["error"]) for name in chosen)
                seen.extend(problems)
            said = {**counts, "wrong": seen[:10], "seconds": time.monotonic() - start}
            print(json.dumps(said), flush=True)
            sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
