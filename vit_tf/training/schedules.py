"""Learning-rate schedules: a schedule is a function of the run's length that returns Keras' own."""

import keras


def warmup_cosine(
    total_steps: int, peak: float = 1e-3, warmup_steps: int | float = 0, final: float = 0.0
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear warm-up from zero, then half a cosine down to `final` (Loshchilov and Hutter, 2017).

    The first update uses step 0, so with a warm-up its rate is 0, as in vision_transformer and
    big_vision.

    Args:
      total_steps: length of the run in optimizer steps; the rate is `final` from there on.
      peak: learning rate at the end of the warm-up.
      warmup_steps: length of the warm-up in steps, or below 1 as a share of the run.
      final: learning rate at the end of the run.

    Returns:
      A Keras schedule, step -> learning rate.

    Raises:
      ValueError: if the warm-up does not leave a step to the cosine, or `peak` is not positive.
    """
    if 0 < warmup_steps < 1:
        warmup_steps = round(warmup_steps * total_steps)
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            f"warmup_steps must lie in [0, total_steps); given {warmup_steps} of {total_steps}"
        )
    if peak <= 0:
        raise ValueError(f"peak must be positive; given {peak}")
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else peak,
        decay_steps=total_steps - warmup_steps,
        alpha=final / peak,
        warmup_target=peak if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def constant(total_steps: int, rate: float = 1e-3) -> float:
    """The same learning rate at every step; `total_steps` is not used."""
    del total_steps
    return rate
