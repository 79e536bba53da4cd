"""The least time a program can take on a chip: by its arithmetic, or by its traffic with memory.

The roofline of Williams, Waterman and Patterson (2009). It is a bound and no prediction: a chip
reaches its peaks on large matrix products alone, and communication is not in it.
"""

import dataclasses

from vit_tf.compilation.chips import CHIPS, Chip


@dataclasses.dataclass(frozen=True)
class Roofline:
    """What bounds a program on a chip.

    Attributes:
      chip: the generation.
      compute_seconds: FLOPs over the device's peak.
      memory_seconds: bytes over the bandwidth of the device's memory.
      images: that a run of the program sees on a device.
    """

    chip: Chip
    compute_seconds: float
    memory_seconds: float
    images: int

    @property
    def seconds(self) -> float:
        """The least time of a run."""
        return max(self.compute_seconds, self.memory_seconds)

    @property
    def bound_by(self) -> str:
        """`"compute"` or `"memory"`."""
        return "compute" if self.compute_seconds >= self.memory_seconds else "memory"

    @property
    def images_per_second_per_chip(self) -> float:
        """The most images a second of a chip, all its devices taken together."""
        return self.images * self.chip.devices_per_chip / self.seconds


def roofline(flops: float, bytes_accessed: float, images: int, chip: str | Chip) -> Roofline:
    """Bounds a program on a chip.

    Args:
      flops: of a run on one device.
      bytes_accessed: in the device's memory, of a run.
      images: that the run sees.
      chip: a generation or its name.

    Returns:
      The bound.

    Raises:
      ValueError: if nothing is computed and nothing read.
    """
    chip = CHIPS[chip] if isinstance(chip, str) else chip
    if flops <= 0 and bytes_accessed <= 0:
        raise ValueError("a program without FLOPs and bytes has no roofline")
    return Roofline(chip, flops / chip.flops, bytes_accessed / chip.bandwidth, images)


def arithmetic_intensity(flops: float, bytes_accessed: float) -> float:
    """FLOPs a byte; a chip's `flops / bandwidth` is where compute begins to bind."""
    return flops / bytes_accessed
