"""What the TPU compiler makes of a configuration's programs, as tables and as JSON."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

from vit_tf.compilation import (
    CHIPS,
    Chip,
    Compiled,
    Roofline,
    Topology,
    compile_program,
    roofline,
)
from vit_tf.compilation.roofline import arithmetic_intensity
from vit_tf.training.tpu_programs import DeviceProgram, TPUPrograms

_GIB = 2**30
# Memory goes by tiles of eight rows; a search for the largest batch is no finer than that.
_TILE = 8
_MOST_BATCH = 2**16


@dataclasses.dataclass(frozen=True)
class Measured:
    """A program with the compiler's verdict.

    Attributes:
      made: the program.
      topology: the slice it was compiled for.
      compiled: the verdict.
      flops: of one run on one device; a loop over micro-batches counts as often as it runs.
      bytes_accessed: of the device's memory in one run, likewise.
    """

    made: DeviceProgram
    topology: Topology
    compiled: Compiled
    flops: float
    bytes_accessed: float

    def bound(self, chip: Chip | None = None) -> Roofline:
        """The least time on a generation, by default on the slice's own."""
        return roofline(
            self.flops, self.bytes_accessed, self.made.batch, chip or self.topology.chip
        )

    def as_dict(self) -> dict[str, Any]:
        """All there is to say, for JSON."""
        compiled = dataclasses.asdict(self.compiled)
        bounds = {} if self.compiled.failure else {n: self.bound(c) for n, c in CHIPS.items()}
        return compiled | {
            "program": self.made.kind,
            "model": self.made.model,
            "batch_per_device": self.made.batch,
            "devices": self.made.replicas,
            "fits": self.compiled.fits,
            "peak_bytes": self.compiled.peak_bytes,
            "flops": self.flops,
            "bytes_accessed": self.bytes_accessed,
            "bounds": {
                name: {
                    "seconds": bound.seconds,
                    "bound_by": bound.bound_by,
                    "images_per_second_per_chip": bound.images_per_second_per_chip,
                }
                for name, bound in bounds.items()
            },
        }


def measure(
    made: DeviceProgram, topology: Topology, cache_dir: str | os.PathLike | None = None
) -> Measured:
    """Compiles a program; see `compile_program` for the errors.

    Args:
      made: the program.
      topology: the slice.
      cache_dir: where verdicts are kept.
    """
    parts = [made.program, *([made.repeated] if made.repeated else [])]
    compiled, *loop = [
        compile_program(part, topology, made.replicas, cache_dir=cache_dir) for part in parts
    ]
    flops, accessed = compiled.flops, compiled.bytes_accessed
    for body in loop:  # the compiler counts what is in a loop once
        flops += (made.repeats - 1) * body.flops
        accessed += (made.repeats - 1) * body.bytes_accessed
    return Measured(made, topology, compiled, flops, accessed)


def find_batch(
    programs: TPUPrograms,
    kind: str,
    topology: Topology,
    cache_dir: str | os.PathLike | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Measured | None:
    """Searches for the largest batch of a device that fits, by doubling and then halving.

    Args:
      programs: of the configuration.
      kind: of the program.
      topology: the slice.
      cache_dir: where verdicts are kept.
      say: told of each batch that was tried.

    Returns:
      The program of that batch, a multiple of 8 above 16; None if not even the smallest fits.
    """

    def tried(batch: int) -> Measured:
        measured = measure(programs.lower(kind, batch), topology, cache_dir)
        say(f"{kind}: batch {batch:,} {'fits' if measured.compiled.fits else 'does not fit'}")
        return measured

    unit = programs.accumulation_steps if kind == "train" else 1
    best, batch = None, unit
    while batch <= _MOST_BATCH and (found := tried(batch)).compiled.fits:
        best, batch = found, 2 * batch
    if best is None:
        return None
    low, high = best.made.batch, batch
    while high - low > (step := unit * (1 if low < 2 * _TILE else _TILE)):
        middle = low + max(step, (high - low) // 2 // step * step)
        found = tried(middle)
        low, high = (middle, high) if found.compiled.fits else (low, middle)
        best = found if found.compiled.fits else best
    return best


def report(measured: Measured) -> str:
    """A program's verdict, figures and bounds, as text."""
    compiled, made, topology = measured.compiled, measured.made, measured.topology
    slice_text = (
        f"{topology.name}, {topology.devices} devices with {_gib(compiled.available_bytes)}"
    )
    together = f", {made.batch * made.replicas:,} in all" if made.replicas > 1 else ""
    rows = [
        ("model", made.model),
        ("slice", slice_text),
        ("program", f"{made.program.name}, batch {made.batch:,} a device{together}"),
        ("verdict", _verdict(compiled)),
    ]
    if not compiled.failure:
        rows += [
            ("memory", _memory(compiled)),
            ("compute", _compute(measured)),
            ("bound", _bounds(measured)),
        ]
    return "\n".join(f"{name:<10} {text}" for name, text in rows)


def comparison(first: Measured, second: Measured, names: Sequence[str]) -> str:
    """Two programs side by side, and the ratio of the second to the first."""
    rows = [("", *names, "ratio")]
    for title, number, write in _COMPARED:
        values = [number(measured) for measured in (first, second)]
        ratio = f"{values[1] / values[0]:.3f}" if all(values) else "-"
        rows.append((title, *[write(value) if value else "-" for value in values], ratio))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    )


def _gib(number: float) -> str:
    return f"{number / _GIB:.2f} GiB"


def _tera(number: float) -> str:
    return f"{number / 1e12:.3g} TFLOP"


def _gigabytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB"


def _rate(measured: Measured) -> float:
    return 0.0 if measured.compiled.failure else measured.bound().images_per_second_per_chip


_COMPARED: tuple[tuple[str, Callable[[Measured], float], Callable[[float], str]], ...] = (
    ("batch a device", lambda m: m.made.batch, lambda n: f"{n:,.0f}"),
    ("peak memory", lambda m: m.compiled.peak_bytes, _gib),
    ("arguments", lambda m: m.compiled.argument_bytes, _gib),
    ("temporaries", lambda m: m.compiled.temp_bytes, _gib),
    ("arithmetic", lambda m: m.flops, _tera),
    ("bytes accessed", lambda m: m.bytes_accessed, _gigabytes),
    ("transcendentals", lambda m: m.compiled.transcendentals, lambda n: f"{n / 1e9:.2f} G"),
    ("images/s/chip, at most", _rate, lambda n: f"{n:,.0f}"),
)


def _verdict(compiled: Compiled) -> str:
    need = f"{_gib(compiled.peak_bytes)} of {_gib(compiled.available_bytes)}"
    if compiled.too_large:
        return f"DOES NOT FIT: needs {need}"
    if compiled.failure:
        return f"DOES NOT COMPILE: {compiled.failure.strip().splitlines()[0]}"
    share = compiled.peak_bytes / compiled.available_bytes
    return f"compiles and fits: {need}, {share:.0%}"


def _memory(compiled: Compiled) -> str:
    new = compiled.output_bytes - compiled.alias_bytes
    return (
        f"arguments {_gib(compiled.argument_bytes)} ({_gib(compiled.alias_bytes)} of them updated "
        f"in place), temporaries {_gib(compiled.temp_bytes)}, new outputs {_gib(new)}, code "
        f"{_gib(compiled.code_bytes)}"
    )


def _compute(measured: Measured) -> str:
    intensity = arithmetic_intensity(measured.flops, measured.bytes_accessed)
    text = (
        f"{_tera(measured.flops)}, {_gigabytes(measured.bytes_accessed)} accessed, "
        f"{intensity:.1f} FLOP a byte"
    )
    loop = f"; its loop counted {measured.made.repeats} times" if measured.made.repeated else ""
    return text + loop


def _bounds(measured: Measured) -> str:
    """Of every generation, from this program's own counts; a bound and no prediction."""
    lines = [f"{'':4}{'ms a step >=':>14}{'images/s/chip <=':>18}  bound by"]
    for name, chip in CHIPS.items():
        bound = measured.bound(chip)
        rate = bound.images_per_second_per_chip
        lines.append(f"{name:4}{1e3 * bound.seconds:>14.2f}{rate:>18,.0f}  {bound.bound_by}")
    return ("\n" + " " * 11).join(lines)
