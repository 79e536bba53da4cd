"""Learning-rate schedules: functions of a run's length that return a relative rate, 1 at the peak.

`Optimization.learning_rate` is the peak. What each returns is a Keras `LearningRateSchedule`; a
user's own may stand in its place. All take

  warmup: the rate rises linearly from `warmup_start`; the first update uses step 0, so with a
    warm-up from zero its rate is 0, as in vision_transformer and big_vision.
  cooldown: at the end of the run the rate falls linearly to `final`, on top of the decay.
  final: the rate at the end, relative to the peak.
  warmup_start: the rate of the first update, relative to the peak.

Durations are steps, or text: "500 steps", "5 epochs", "1281167 examples", "10%" (see `RunLength`).
The shapes are big_vision's (`create_learning_rate_schedule`), `epoch_cosine` is DeiT's.
"""

from collections.abc import Sequence

import numpy as np

from vit_tf.training import schedule_shapes as shapes
from vit_tf.training.run_length import Duration, RunLength


def constant(
    length: RunLength,
    warmup: Duration = 0,
    cooldown: Duration = 0,
    final: float = 0.0,
    warmup_start: float = 0.0,
) -> shapes.Constant:
    """The peak between warm-up and cool-down; `final` is reached by a cool-down only.

    Raises:
      ValueError: for durations that do not fit the run, as in all schedules.
    """
    return shapes.Constant(**_parts(length, warmup, cooldown, final, warmup_start))


def linear(
    length: RunLength,
    warmup: Duration = 0,
    cooldown: Duration = 0,
    final: float = 0.0,
    warmup_start: float = 0.0,
) -> shapes.Polynomial:
    """A line from the peak to `final`."""
    return polynomial(length, 1.0, warmup, cooldown, final, warmup_start)


def polynomial(
    length: RunLength,
    power: float = 2.0,
    warmup: Duration = 0,
    cooldown: Duration = 0,
    final: float = 0.0,
    warmup_start: float = 0.0,
) -> shapes.Polynomial:
    """The share of the run that is left, to a power."""
    parts = _parts(length, warmup, cooldown, final, warmup_start)
    return shapes.Polynomial(power=power, **parts)


def cosine(
    length: RunLength,
    warmup: Duration = 0,
    cooldown: Duration = 0,
    final: float = 0.0,
    warmup_start: float = 0.0,
) -> shapes.Cosine:
    """Half a cosine from the peak to `final` (Loshchilov and Hutter, 2017)."""
    return shapes.Cosine(**_parts(length, warmup, cooldown, final, warmup_start))


def rsqrt(
    length: RunLength,
    timescale: Duration = 10_000,
    shift: Duration = 0,
    warmup: Duration = 0,
    cooldown: Duration = 0,
    final: float = 0.0,
    warmup_start: float = 0.0,
) -> shapes.ReciprocalSqrt:
    """One over the square root of time, for runs without a fixed end (Scaling ViT, section 3.5).

    After the warm-up the rate is 1 / sqrt(1 + (steps since + shift) / timescale).

    Raises:
      ValueError: if `timescale` is 0, or durations do not fit the run.
    """
    parts = _parts(length, warmup, cooldown, final, warmup_start)
    timescale_steps = length.in_steps(timescale, "timescale")
    if not timescale_steps:
        raise ValueError(f"timescale must be positive; given {timescale!r}")
    return shapes.ReciprocalSqrt(
        timescale=timescale_steps, shift=length.in_steps(shift, "shift"), **parts
    )


def staircase(
    length: RunLength,
    boundaries: Sequence[Duration] = (),
    factors: Sequence[float] = (),
    warmup: Duration = 0,
    cooldown: Duration = 0,
    final: float = 0.0,
    warmup_start: float = 0.0,
) -> shapes.Staircase:
    """Steps: from each boundary on, the factor that belongs to it (BiT's fine-tuning rule).

    Raises:
      ValueError: if boundaries and factors differ in number or boundaries do not rise, or
        durations do not fit the run.
    """
    steps = [length.in_steps(boundary, "boundaries") for boundary in boundaries]
    if len(steps) != len(factors) or steps != sorted(set(steps)):
        raise ValueError(
            "staircase needs rising boundaries and a factor for each; given boundaries "
            f"{list(boundaries)} (steps {steps}) and factors {list(factors)}"
        )
    parts = _parts(length, warmup, cooldown, final, warmup_start)
    return shapes.Staircase(boundaries=steps, factors=list(factors), **parts)


def epoch_cosine(
    length: RunLength,
    warmup: Duration = 0,
    cooldown: Duration = 0,
    final: float = 0.0,
    warmup_start: float = 0.0,
    one_epoch_late: bool = False,
) -> shapes.Staircase:
    """A cosine that changes once an epoch, as timm's and DeiT's recipes were run.

    In epoch e the rate is warmup_start + e (1 - warmup_start) / warmup while e < warmup, then
    final + (1 - final) (1 + cos(pi e / epochs)) / 2: the cosine counts from the start of training,
    so it begins below the peak. `cooldown` keeps the rate at `final`; it takes epochs off the
    cosine.

    Args:
      length: of the run; must know its epochs.
      warmup: rounded to whole epochs, like `cooldown`.
      cooldown: how long the rate stays at `final` in the end.
      final: rate at the cosine's end, relative to the peak.
      warmup_start: rate of the first epoch, relative to the peak.
      one_epoch_late: the rates that DeiT's loop really used: it asked for the next rate with the
        number of the epoch that was done, so the first two epochs run at `warmup_start`.

    Raises:
      ValueError: if the input's size is not known, or durations do not fit the run.
    """
    _parts(length, warmup, cooldown, final, warmup_start)
    one = length.in_steps("1 epoch", "epoch_cosine, which counts epochs:")
    per_epoch = length.steps_per_epoch or one
    epochs = max(1, round(length.steps / per_epoch))
    warm = round(length.in_steps(warmup, "warmup") / per_epoch)
    last = max(1, epochs - round(length.in_steps(cooldown, "cooldown") / per_epoch))
    epoch = np.arange(epochs + 1, dtype=np.float64)
    if one_epoch_late:
        epoch = np.maximum(epoch - 1, 0)
    rates = final + (1 - final) / 2 * (1 + np.cos(np.pi * np.minimum(epoch, last) / last))
    rates = np.where(epoch < warm, warmup_start + epoch * (1 - warmup_start) / max(warm, 1), rates)
    # The first step that lies wholly or partly in an epoch belongs to it.
    starts = np.ceil(np.arange(1, epochs + 1) * per_epoch - 1e-6).astype(int)
    return shapes.Staircase(
        steps=length.steps, boundaries=starts.tolist(), factors=rates[1:].tolist(), first=rates[0]
    )


def _parts(
    length: RunLength, warmup: Duration, cooldown: Duration, final: float, warmup_start: float
) -> dict[str, float]:
    """What all shapes take, with durations in steps."""
    warmup_steps = length.in_steps(warmup, "warmup")
    cooldown_steps = length.in_steps(cooldown, "cooldown")
    if warmup_steps + cooldown_steps > length.steps or warmup_steps == length.steps > 0:
        raise ValueError(
            f"a warm-up of {warmup_steps} steps ({warmup!r}) and a cool-down of {cooldown_steps} "
            f"({cooldown!r}) do not fit a run of {length.steps} steps; shorten them (the "
            "schedule's warmup and cooldown, e.g. '5%'), or lengthen RunConfig.steps or epochs"
        )
    for name, value in (("final", final), ("warmup_start", warmup_start)):
        if value < 0:
            raise ValueError(f"{name} must not be negative, relative to the peak; given {value}")
    return {
        "steps": length.steps,
        "warmup": warmup_steps,
        "cooldown": cooldown_steps,
        "final": final,
        "warmup_start": warmup_start,
    }
