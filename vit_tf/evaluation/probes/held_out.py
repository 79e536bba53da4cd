"""A part of the training split that a probe chooses by, so that it never chooses by test labels."""

import numpy as np


def hold_out(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divides examples into those to learn from and those to choose by.

    Every class gives its share, rounded, but at least one example and never its last; a class of
    one example gives none. Examples of several labels are divided without regard to classes.

    Args:
      labels: integers [examples], or float targets [examples, classes].
      share: of the examples to hold out, in (0, 1).
      seed: of the draw.

    Returns:
      Indices to learn from and indices held out, both rising.

    Raises:
      ValueError: if the share is out of range or no class has two examples.
    """
    if not 0 < share < 1:
        raise ValueError(f"held_out is a share of the training split in (0, 1); given {share}")
    rng = np.random.default_rng(seed)
    several = labels.ndim == 2
    groups = np.zeros(len(labels), np.int64) if several else labels
    held_out = np.zeros(len(labels), bool)
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        held_out[members[: min(len(members) - 1, max(1, round(share * len(members))))]] = True
    if not held_out.any():
        raise ValueError(
            f"no class of the {len(labels)} training examples has two, so none can be held out to "
            "choose by; give more examples, or one value to choose from"
        )
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)
