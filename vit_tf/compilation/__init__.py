"""Programs compiled for TPUs without a TPU: lowered, compiled by libtpu, and weighed."""

from vit_tf.compilation.chips import CHIPS, Chip, Topology, chip_of, parse_topology
from vit_tf.compilation.program import Program, lower
from vit_tf.compilation.roofline import Roofline, roofline
from vit_tf.compilation.tpu_compiler import Compiled, compile_program

__all__ = [
    "CHIPS",
    "Chip",
    "Compiled",
    "Program",
    "Roofline",
    "Topology",
    "chip_of",
    "compile_program",
    "lower",
    "parse_topology",
    "roofline",
]
