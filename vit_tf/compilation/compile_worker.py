"""A program of its own: compiles one HLO module for a TPU, with jax and libtpu alone.

  python compile_worker.py REQUEST.json RESULT.json

The compiler reads environment variables when it is loaded, takes a lock, and ends the process when
it fails badly: it gets one to itself, and `vit_tf` and TensorFlow are not in it. See
`vit_tf.compilation.tpu_compiler`, which starts it.
"""

import hashlib
import importlib.metadata
import json
import os
import re
import sys
from typing import Any

# TensorFlow's name of a function holds a number that is another one in each process.
_NUMBERED = re.compile(r"_\d+__\.\d+")
# Marks where a value must not share memory; the compiler finds such places itself.
_COPY = "mhlo.copy"


def compile_request(request: dict[str, Any]) -> dict[str, Any]:
    """Compiles.

    Args:
      request: `hlo`, path of a serialized module; `topology` and `options` of it, as
        `jax.experimental.topologies.get_topology_desc` takes them; `replicas` that run the program;
        `text`, a path where to write the compiled module, or None; `cache`, a folder of results.

    Returns:
      Numbers of the compiled program, or `error`, the compiler's message.
    """
    import jax
    import numpy as np
    from jax._src.interpreters import mlir
    from jax._src.lib import _jax, xla_client
    from jax._src.lib.mlir import ir
    from jax.experimental import topologies

    with open(request["hlo"], "rb") as file:
        computation = xla_client.XlaComputation(file.read())
    text = xla_client._xla.mlir.xla_computation_to_mlir_module(computation)
    topology = topologies.get_topology_desc(
        platform="tpu", topology_name=request["topology"], **request["options"]
    )
    devices = topology.devices[: request["replicas"]]
    options = xla_client.CompileOptions()
    options.num_replicas, options.num_partitions = len(devices), 1
    ids = np.array([[device.id] for device in devices])
    options.device_assignment = xla_client.DeviceAssignment.create(ids)
    with mlir.make_ir_context():
        module = ir.Module.parse(text)
        _drop_copies(module, ir)
        kept = request["cache"] and _kept_in(request, str(module))
        if kept and os.path.exists(kept) and not request["text"]:
            with open(kept) as file:
                return json.load(file)
        try:
            compiled = devices[0].client.compile(module, _jax.DeviceList(tuple(devices)), options)
        except jax.errors.JaxRuntimeError as error:
            return _keep(kept, {"error": str(error)})
    if request["text"]:
        with open(request["text"], "w") as file:
            file.write(compiled.hlo_modules()[0].to_string())
    return _keep(kept, _numbers(compiled))


def _kept_in(request: dict[str, Any], text: str) -> str:
    """Path of a program's result: that of its ops, the slice, and the compiler's version."""
    about = [request[name] for name in ("topology", "options", "replicas")]
    about += [importlib.metadata.version("libtpu"), _NUMBERED.sub("", text)]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    return os.path.join(request["cache"], f"{key[:32]}.json")


def _keep(path: str | None, result: dict[str, Any]) -> dict[str, Any]:
    """Writes a result where it is to be kept, whole or not at all."""
    if path:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        part = f"{path}.{os.getpid()}"
        with open(part, "w") as file:
            json.dump(result, file)
        os.replace(part, path)
    return result


def _drop_copies(module: Any, ir: Any) -> None:
    """StableHLO has no op that copies, though modules from TensorFlow hold some."""
    copies = []

    def find(op):
        if op.operation.name == _COPY:
            copies.append(op.operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(find)
    for copy in copies:
        copy.results[0].replace_all_uses_with(copy.operands[0])
        copy.erase()


def _numbers(compiled: Any) -> dict[str, Any]:
    memory = compiled.get_compiled_memory_stats()
    cost = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    return {
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "alias_bytes": memory.alias_size_in_bytes,
        "temp_bytes": memory.temp_size_in_bytes,
        "code_bytes": memory.generated_code_size_in_bytes,
        "flops": cost.get("flops", 0.0),
        "bytes_accessed": cost.get("bytes accessed", 0.0),
        "transcendentals": cost.get("transcendentals", 0.0),
    }


if __name__ == "__main__":
    with open(sys.argv[1]) as request_file:
        result = compile_request(json.load(request_file))
    with open(sys.argv[2], "w") as result_file:
        json.dump(result, result_file)
