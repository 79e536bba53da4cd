"""Steps whose loss or gradient is no number, and losses that blow up: skipped, or the end."""

import dataclasses
import math
from collections.abc import Callable, Mapping

import tensorflow as tf

_ACTIONS = ("stop", "skip")
_SMOOTHING = 0.9  # of the mean losses that `loss_factor` compares
_REMEDY = (
    "Lower the learning rate (Optimization.learning_rate), lengthen the warm-up or clip gradients "
    "harder (Optimization.clip_norm)"
)


@dataclasses.dataclass(frozen=True)
class BadSteps:
    """What becomes of a step whose loss or gradient is not finite, or whose gradient is too large.

    A skipped step changes neither weights nor the optimizer's moments, neither averages nor batch
    statistics, and is not in the means; the learning rate and the data go on as after any step.
    Whatever ends the run does so before a checkpoint is made of it.

    Attributes:
      action: `"stop"` ends the run at the first bad step; `"skip"` goes on without it.
      most: more skipped steps than these in the whole run end it.
      most_in_a_row: as do more than these without a good one between them.
      norm_above: a step is bad, too, if the norm of its gradient before clipping exceeds this.
      loss_above: a loop whose mean loss exceeds this ends the run.
      loss_factor: as does one whose mean loss exceeds so many times the smallest smoothed loss so
        far (0.9 of the smoothed one before + 0.1 of the loop's).
    """

    action: str = "stop"
    most: int = 100
    most_in_a_row: int = 10
    norm_above: float | None = None
    loss_above: float | None = None
    loss_factor: float | None = None

    def __post_init__(self):
        if self.action not in _ACTIONS:
            raise ValueError(
                f"BadSteps.action must be one of {', '.join(_ACTIONS)}; given {self.action!r}"
            )
        for name in ("norm_above", "loss_above"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"BadSteps.{name} must be positive or None; given {value}")
        if self.loss_factor is not None and self.loss_factor <= 1:
            raise ValueError(f"BadSteps.loss_factor must exceed 1; given {self.loss_factor}")


class Watch:
    """Judges and counts steps; what it remembers is in the checkpoints.

    Args:
      bad_steps: what is bad, and what follows.
      strategy: where the run is.
    """

    def __init__(self, bad_steps: BadSteps, strategy: tf.distribute.Strategy):
        self._config = bad_steps
        with strategy.scope():  # each replica counts for itself, and all the same
            self._total, self._in_a_row, self._longest = (
                tf.Variable(0, dtype=tf.int64, trainable=False) for _ in range(3)
            )
        self._smoothed, self._smallest = (
            tf.Variable(math.inf, dtype=tf.float64, trainable=False) for _ in range(2)
        )
        self.variables = {
            "total": self._total,
            "in_a_row": self._in_a_row,
            "longest": self._longest,
            "smoothed_loss": self._smoothed,
            "smallest_loss": self._smallest,
        }

    @property
    def skips(self) -> bool:
        """Whether a bad step is to leave everything as it was."""
        return self._config.action == "skip"

    def judge(self, loss: tf.Tensor, gradient_norm: tf.Tensor) -> tf.Tensor:
        """Whether a step is good, a boolean scalar; counts it. Call it in replica context."""
        good = tf.math.is_finite(loss) & tf.math.is_finite(gradient_norm)
        if self._config.norm_above is not None:
            good &= gradient_norm <= self._config.norm_above
        one = tf.where(good, 0, 1)
        in_a_row = tf.where(good, tf.zeros_like(self._in_a_row), self._in_a_row + 1)
        self._total.assign_add(tf.cast(one, tf.int64))
        self._in_a_row.assign(in_a_row)
        self._longest.assign(tf.maximum(self._longest, in_a_row))
        return good

    def check_steps(
        self, values: Mapping[str, float], steps: str, last_good: Callable[[], str]
    ) -> None:
        """Ends the run if there were too many bad steps.

        Args:
          values: means over the steps, and how many `"bad_steps"` there were.
          steps: which steps, such as `"between steps 7 and 8"`.
          last_good: returns a sentence about the checkpoint that is left.

        Raises:
          FloatingPointError: that says what was bad and what helps.
        """
        total, longest = int(self._total.numpy()), int(self._longest.numpy())
        if self.skips and (total > self._config.most or longest > self._config.most_in_a_row):
            raise FloatingPointError(
                f"{total} steps were bad and skipped, {longest} of them in a row, the last of them "
                f"{steps}; BadSteps.most is {self._config.most} and BadSteps.most_in_a_row "
                f"{self._config.most_in_a_row}. {last_good()} {_REMEDY}"
            )
        if self.skips or not values["bad_steps"]:
            return
        bad = next((n for n in ("loss", "gradient_norm") if not math.isfinite(values[n])), None)
        what = (
            f"the {bad.replace('_', ' ')} became {values[bad]} {steps}"
            if bad
            else f"the gradient norm exceeded BadSteps.norm_above = {self._config.norm_above:g} in "
            f"{values['bad_steps']} steps {steps}"
        )
        raise FloatingPointError(
            f"{what}. {last_good()} {_REMEDY}, or skip such steps (BadSteps.action = 'skip'); "
            "RunConfig.bad_steps = None goes on regardless"
        )

    def check_loss(self, loss: float, steps: str, last_good: Callable[[], str]) -> None:
        """Ends the run if the mean loss of a whole loop blew up.

        Args:
          loss: NaN if all its steps were skipped.
          steps: as for `check_steps`.
          last_good: as for `check_steps`.

        Raises:
          FloatingPointError: that says how much.
        """
        smallest = float(self._smallest.numpy())
        most, factor = self._config.loss_above, self._config.loss_factor
        limit = None
        if most is not None and loss > most:
            limit = f"BadSteps.loss_above = {most:g}"
        elif factor is not None and loss > factor * smallest:
            limit = (
                f"BadSteps.loss_factor = {factor:g} times the smallest smoothed loss so far, "
                f"{smallest:.4g}"
            )
        if limit:
            raise FloatingPointError(
                f"the mean loss {steps} blew up to {loss:.4g}, above {limit}. {last_good()} "
                f"{_REMEDY}"
            )
        if math.isfinite(loss):
            before = float(self._smoothed.numpy())
            smoothed = loss if before == math.inf else _SMOOTHING * before + (1 - _SMOOTHING) * loss
            self._smoothed.assign(smoothed)
            self._smallest.assign(min(smallest, smoothed))
