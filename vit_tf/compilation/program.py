"""What a TensorFlow function is to XLA, before any hardware is known."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from vit_tf.compilation.random_generator import use_own_generator
from vit_tf.compilation.shared_computations import share_computations

_UNSUPPORTED = re.compile(r"\((No registered '(\w+)' OpKernel[^)]*?)\{\{node ([^}]+)\}\}\)")


@dataclasses.dataclass(frozen=True)
class Program:
    """A function for one device, as XLA is given it.

    Attributes:
      hlo: serialized `HloModuleProto`. Variables that the function assigns are arguments whose
        memory their new values take.
      name: for messages.
      argument_bytes: of the arguments and of the variables that it uses.
    """

    hlo: bytes
    name: str
    argument_bytes: int


def lower(function: Callable[..., Any], *specs: Any, name: str | None = None) -> Program:
    """Traces a function and brings it into XLA's form; nothing of it runs.

    Args:
      function: of tensors; a plain function or a `tf.function`.
      *specs: of its arguments, `tf.TensorSpec`s with whole shapes, or structures of them.
      name: for messages. Default: the function's.

    Returns:
      The program.

    Raises:
      ValueError: for a shape that is not known, and for ops that XLA cannot compile, by name.
    """
    flat = tf.nest.flatten(list(specs))
    unknown = [spec for spec in flat if not spec.shape.is_fully_defined()]
    if unknown:
        raise ValueError(
            f"XLA compiles for whole shapes; {unknown[0].name or 'an argument'} has the shape "
            f"{unknown[0].shape}"
        )
    name = name or getattr(function, "__name__", "function")

    def flattened(*tensors):
        return function(*tf.nest.pack_sequence_as(list(specs), tensors))

    flattened.__name__ = re.sub(r"\W", "_", name)  # what the compiler's messages call it
    compiled = tf.function(flattened, jit_compile=True, autograph=False)
    nameless = [tf.TensorSpec(spec.shape, spec.dtype) for spec in flat]
    try:
        hlo = compiled.experimental_get_compiler_ir(*nameless)(stage="hlo_serialized")
    except (ValueError, tf.errors.OpError) as error:
        raise ValueError(f"XLA cannot compile {name}: {_reason(str(error))}") from error
    concrete = compiled.get_concrete_function(*nameless)
    variables = {id(v): v for v in concrete.graph.variables}.values()
    held = [*flat, *variables]
    argument_bytes = sum(v.shape.num_elements() * v.dtype.size for v in held)
    return Program(use_own_generator(share_computations(hlo)), name, argument_bytes)


def _reason(message: str) -> str:
    """The op that XLA has no kernel of, or else the message itself, in one line."""
    ops = {match[1]: match[2] for match in re.findall(_UNSUPPORTED, message)}
    if ops:
        listed = ", ".join(f"{op} (node {node})" for op, node in ops.items())
        return f"it has no kernel of {listed}"
    return message.partition("\n")[0]
