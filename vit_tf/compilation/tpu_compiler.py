"""The real TPU compiler as a function: a program and a slice in, a verdict and figures out.

libtpu compiles for TPUs that are not there (jax.experimental.topologies). Each program is compiled
in a process of its own; several may run at a time.
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time

from vit_tf.compilation.chips import Topology, parse_topology
from vit_tf.compilation.program import Program

_WORKER = os.path.join(os.path.dirname(__file__), "compile_worker.py")
# The compiler looks for no TPU and for no other process that has one.
_ENVIRONMENT = {
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_PLATFORMS": "cpu",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
_SAID_EVERY = 15.0  # seconds between two lines about a program that is being compiled
_NUMBER = r"([\d.]+)([KMGT]?)"
_TOO_LARGE = (
    re.compile(rf"[Uu]sed {_NUMBER} of {_NUMBER} hbm"),
    re.compile(rf"\({_NUMBER}\) exceeds available HBM \({_NUMBER}\)"),
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program compiled for one device of a slice, or why it is not.

    FLOPs, bytes and transcendentals are the compiler's own count for the optimized program, one
    run of it on one device.

    Attributes:
      topology: name of the slice.
      available_bytes: memory that a device has for programs.
      argument_bytes: of arguments and variables, as laid out in memory.
      output_bytes: of results and new values of variables.
      alias_bytes: of outputs that lie in the memory of arguments.
      temp_bytes: of intermediate values.
      code_bytes: of the program itself.
      flops: floating-point operations.
      bytes_accessed: read from and written to memory.
      transcendentals: exponentials, square roots and the like.
      failure: the compiler's message where there is no program; the numbers above are then 0.
      needed_bytes: with a failure for want of memory, what the message says is needed; else 0.
      seconds: that compiling took.
    """

    topology: str
    available_bytes: int
    argument_bytes: int = 0
    output_bytes: int = 0
    alias_bytes: int = 0
    temp_bytes: int = 0
    code_bytes: int = 0
    flops: float = 0.0
    bytes_accessed: float = 0.0
    transcendentals: float = 0.0
    failure: str | None = None
    needed_bytes: int = 0
    seconds: float = 0.0

    @property
    def peak_bytes(self) -> int:
        """Memory while the program runs; where it is too large, what the compiler says it needs."""
        if self.failure:
            return self.needed_bytes
        kept = self.argument_bytes + self.output_bytes - self.alias_bytes
        return kept + self.temp_bytes + self.code_bytes

    @property
    def too_large(self) -> bool:
        """Whether memory is what is wanting."""
        return self.peak_bytes > self.available_bytes

    @property
    def fits(self) -> bool:
        """Whether there is a program and memory for it."""
        return self.failure is None and not self.too_large


def compile_program(
    program: Program,
    topology: str | Topology,
    replicas: int = 1,
    text_path: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> Compiled:
    """Compiles a program for one device of a slice. Minutes for a large one, said on stderr.

    Args:
      program: see `lower`.
      topology: the slice or its name, such as `"v5e:2x2"`.
      replicas: devices that run the program together; more than one for a program that sums over
        them.
      text_path: where to write the optimized HLO as text; None writes none.
      cache_dir: folder where results are kept, by program, slice and version of libtpu: what is
        there already is not compiled again. None keeps none.

    Returns:
      The figures, or the failure.

    Raises:
      ImportError: without jax and libtpu.
      ValueError: for an unknown topology, or more replicas than it has devices.
      RuntimeError: when the compiler's process ended without an answer.
    """
    topology = parse_topology(topology) if isinstance(topology, str) else topology
    if not 1 <= replicas <= topology.devices:
        raise ValueError(f"{topology.name} has {topology.devices} devices; given {replicas=}")
    compiler_version()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tpu_compile_") as folder:
        paths = [os.path.join(folder, name) for name in ("hlo", "request", "result", "log")]
        hlo, request, result, log = paths
        with open(hlo, "wb") as file:
            file.write(program.hlo)
        with open(request, "w") as file:
            asked = {"hlo": hlo, "replicas": replicas, **_named(topology)}
            asked["text"] = text_path and os.path.abspath(text_path)
            asked["cache"] = cache_dir and os.path.abspath(os.path.expanduser(cache_dir))
            json.dump(asked, file)
        status = _run([request, result], log, f"compiling {program.name} for {topology.name}")
        if not os.path.exists(result):
            with open(log, errors="replace") as file:
                said = file.read().strip().splitlines()
            raise RuntimeError(
                f"the TPU compiler ended with status {status} and no answer for {program.name}: "
                f"{_last_words(said)}"
            )
        with open(result) as file:
            numbers = json.load(file)
    seconds = time.monotonic() - begun
    available = topology.chip.hbm_bytes
    if "error" in numbers:
        failure = numbers["error"]
        needed, limit = parse_memory(failure)
        return Compiled(
            topology.name,
            limit or available,
            failure=failure,
            needed_bytes=needed,
            seconds=seconds,
        )
    return Compiled(topology.name, available, **numbers, seconds=seconds)


def compiler_version() -> str:
    """Version of libtpu.

    Raises:
      ImportError: without jax and libtpu.
    """
    for module in ("jax", "libtpu"):
        if importlib.util.find_spec(module) is None:
            raise ImportError(
                f"compiling for TPUs needs the package {module}, which is not installed: "
                "pip install -e '.[tpu]'"
            )
    return importlib.metadata.version("libtpu")


def parse_memory(message: str) -> tuple[int, int]:
    """Bytes that a program needs and has, out of the compiler's message; zeros if it is no such."""
    for pattern in _TOO_LARGE:
        found = pattern.search(message)
        if found:
            needed, unit, available, of = found.groups()
            return _bytes(needed, unit), _bytes(available, of)
    return 0, 0


def _bytes(number: str, unit: str) -> int:
    return round(float(number) * _UNITS[unit])


def _named(topology: Topology) -> dict:
    """The slice as libtpu asks for it; it takes hosts of four chips unless told otherwise."""
    options = {"chip_config_name": topology.chip.config} if topology.chip.config else {}
    if topology.chips == 1:
        options["chips_per_host_bounds"] = [1, 1, 1]
    return {"topology": topology.name, "options": options}


def _run(arguments: list[str], log: str, what: str) -> int:
    """Runs the worker, and says from time to time that it still does; returns its exit status."""
    environment = {**os.environ, **_ENVIRONMENT}
    command = [sys.executable, _WORKER, *arguments]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    begun, said = time.monotonic(), 0.0
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=1.0)
            spent = time.monotonic() - begun
            if spent - said >= _SAID_EVERY:
                said = spent
                print(f"{what} ... {spent:.0f} s", file=sys.stderr, flush=True)
    finally:
        process.kill()
        process.wait()


def _last_words(lines: list[str]) -> str:
    """The error among what a process wrote last."""
    errors = [line for line in lines if "Error" in line]
    return (errors or lines or ["it wrote nothing"])[-1]
