"""How long a run is, and durations in it: in steps, epochs, examples or percent."""

import dataclasses
import re

# A whole number of optimizer steps, or a number with its unit: "5 epochs", "10%".
Duration = int | str

_UNITS = {"step": "steps", "epoch": "epochs", "example": "examples", "%": "%"}
_EXAMPLES = "as in 500, '500 steps', '5 epochs', '1281167 examples' or '10%'"


@dataclasses.dataclass(frozen=True)
class RunLength:
    """Length of a run, which its schedules are made for.

    Attributes:
      steps: optimizer steps.
      batch_size: examples a step, over all replicas.
      examples_per_epoch: of the training data; None if that is not known.
    """

    steps: int
    batch_size: int | None = None
    examples_per_epoch: int | None = None

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and value <= 0:
                raise ValueError(f"RunLength.{field.name} must be positive; given {value}")

    @property
    def steps_per_epoch(self) -> float | None:
        """Optimizer steps in a pass over the data, None if that is not known."""
        if self.batch_size is None or self.examples_per_epoch is None:
            return None
        return self.examples_per_epoch / self.batch_size

    def in_steps(self, duration: Duration, name: str = "duration") -> int:
        """A duration in whole steps: rounded, but at least one unless it is 0 (as big_vision).

        Args:
          duration: whole steps, or text with a unit: "500 steps", "0.5 epochs", "96 examples",
            "10%" (of the run).
          name: of the setting, for errors.

        Raises:
          ValueError: for text that is no duration, an unknown unit, a negative number, a number of
            steps that is not whole, and for a unit that needs facts which this run does not have.
        """
        number, unit = _parse(duration, name)
        if unit == "steps":
            if number != int(number):
                raise ValueError(
                    f"{name} must be a whole number of steps; given {duration!r}. Parts of a run "
                    f"are given with a unit, {_EXAMPLES}"
                )
            return int(number)
        steps = number * self._steps_in_one(unit, duration, name)
        return max(1, round(steps)) if steps else 0

    def _steps_in_one(self, unit: str, duration: Duration, name: str) -> float:
        if unit == "%":
            return self.steps / 100
        if self.batch_size is None:
            raise ValueError(f"{name} {duration!r} needs the batch size, which is not known here")
        if unit == "examples":
            return 1 / self.batch_size
        if self.steps_per_epoch is None:
            raise ValueError(
                f"{name} {duration!r} needs an input that knows its size; give it in steps, "
                "examples or percent instead"
            )
        return self.steps_per_epoch


def _parse(duration: Duration, name: str) -> tuple[float, str]:
    """Number and unit of a duration."""
    if isinstance(duration, str):
        match = re.fullmatch(r"\s*([-+.\d_e]+)\s*([a-z]+|%)\s*", duration.lower())
        try:
            number, unit = float(match[1]), _UNITS[match[2].removesuffix("s")]
        except (TypeError, ValueError, KeyError):
            raise ValueError(
                f"{name} must be a duration, {_EXAMPLES}; given {duration!r}"
            ) from None
    elif isinstance(duration, int | float) and not isinstance(duration, bool):
        number, unit = float(duration), "steps"
    else:
        raise ValueError(f"{name} must be a duration, {_EXAMPLES}; given {duration!r}")
    if not 0 <= number < float("inf"):
        raise ValueError(f"{name} must not be negative or infinite; given {duration!r}")
    return number, unit
