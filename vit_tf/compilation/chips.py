"""Cloud TPU generations: what a device of each holds and does, and how slices of them are named.

A device is what a replica runs on. It is a chip, but on v2 and v3 one of a chip's two cores: the
chip's figures are halved there. `hbm_bytes` is what the compiler of libtpu 0.0.52 lets a program
have, a little less than the chip has, as its message about a program that is too large says it.
"""

import dataclasses
import math

from vit_tf.suggestions import did_you_mean

_TERA, _GIGA, _GIB = 1e12, 1e9, 2**30
_DOCS = "https://cloud.google.com/tpu/docs/"


@dataclasses.dataclass(frozen=True)
class Chip:
    """A generation of TPUs.

    Attributes:
      name: such as `"v5e"`.
      hbm_bytes: memory that a program may have on a device.
      flops: bfloat16 operations a second of a device, at most.
      bandwidth: bytes a second between a device and its memory, at most.
      devices_per_chip: replicas a chip.
      dimensions: of a slice's shape.
      config: libtpu's name of what makes the two cores of a chip one device, where it asks for it.
      source: where the figures of the chip are published.
    """

    name: str
    hbm_bytes: int
    flops: float
    bandwidth: float
    devices_per_chip: int
    dimensions: int
    source: str
    config: str | None = None


def _chip(
    name: str,
    hbm_gib: float,
    teraflops: float,
    gigabytes: float,
    cores: int = 1,
    dimensions: int = 2,
    config: str | None = None,
) -> Chip:
    """A row, with compute and bandwidth of the whole chip as they are published."""
    flops, bandwidth = teraflops * _TERA / cores, gigabytes * _GIGA / cores
    hbm = round(hbm_gib * _GIB)
    return Chip(name, hbm, flops, bandwidth, cores, dimensions, _DOCS + name, config)


CHIPS = {
    chip.name: chip
    for chip in (
        _chip("v2", 7.48, 45, 700, cores=2),
        _chip("v3", 15.48, 123, 900, cores=2),
        _chip("v4", 30.75, 275, 1200, dimensions=3, config="megacore"),
        _chip("v5e", 15.75, 197, 819),
        _chip("v5p", 95.73, 459, 2765, dimensions=3),
        _chip("v6e", 31.24, 918, 1638),
    )
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice of TPUs.

    Attributes:
      chip: its generation.
      shape: chips along each axis of its network.
    """

    chip: Chip
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """As libtpu calls it, such as `"v5e:2x2"`."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def chips(self) -> int:
        """Number of chips."""
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        """Number of replicas that run on it."""
        return self.chips * self.chip.devices_per_chip


def parse_topology(name: str) -> Topology:
    """Reads the name of a slice.

    Args:
      name: generation and shape, such as `"v5e:4x4"`, `"v4:2x2x1"` or `"v3:2x2"`. A generation
        alone is one host's four chips.

    Returns:
      The slice.

    Raises:
      ValueError: for an unknown generation, or a shape that it does not come in.
    """
    generation, _, text = name.partition(":")
    chip = CHIPS.get(generation)
    if chip is None:
        hint = did_you_mean(generation, CHIPS, count=1, cutoff=0.3)
        raise ValueError(
            f"unknown TPU generation {generation!r} in topology {name!r}.{hint} Known are "
            f"{', '.join(CHIPS)}"
        )
    example = "2x2x1" if chip.dimensions == 3 else "2x2"
    shape = tuple(int(n) if n.isdigit() else 0 for n in (text or example).split("x"))
    hosts = len(shape) == chip.dimensions and all(shape) and _whole_hosts(shape)
    if not hosts:
        raise ValueError(
            f"topology {name!r}: slices of {generation} have a shape of {chip.dimensions} numbers, "
            f"of which the first two are even, or all are 1; e.g. '{generation}:{example}'"
        )
    return Topology(chip, shape)


def chip_of(topology: str) -> Chip:
    """The generation of a slice by its name; errors are those of `parse_topology`."""
    return parse_topology(topology).chip


def _whole_hosts(shape: tuple[int, ...]) -> bool:
    """Whether hosts of 2 x 2 chips fill it; a single chip is a part of one."""
    return math.prod(shape) == 1 or (shape[0] % 2 == 0 and shape[1] % 2 == 0)
