"""Support sets of few-shot probes: k examples of each class, the smaller ones within the larger."""

from collections.abc import Sequence

import numpy as np

from vit_tf.data.subsets import draw_per_class


def nested_shots(labels: np.ndarray, shots: Sequence[int], seed: int) -> dict[int, np.ndarray]:
    """The examples that a few-shot probe learns from, drawn as big_vision draws them.

    Each class's examples are permuted, class after class, by one `np.random.default_rng(seed)`; the
    first k of each are those of k shots (big_vision/evaluators/fewshot_lsr.py). A class of fewer
    than k examples gives all that it has.

    Args:
      labels: integers [examples].
      shots: numbers of examples a class.
      seed: of the draw.

    Returns:
      For each number of shots the indices of its examples, class after class.
    """
    drawn = draw_per_class(labels, max(shots), seed)
    _, of_class = np.unique(labels[drawn], return_counts=True)
    # The place of each drawn example among those of its class.
    place = np.arange(len(drawn)) - np.repeat(np.cumsum(of_class) - of_class, of_class)
    return {k: drawn[place < k] for k in shots}


def count_short_classes(labels: np.ndarray, num_classes: int, shots: int) -> int:
    """How many classes have fewer examples than that, those without any included."""
    return int((np.bincount(labels, minlength=num_classes) < shots).sum())
