"""Whether a training split has examples of every class, and enough of them."""

from collections.abc import Sequence

import numpy as np

from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.probes.base import ProbeResult


def coverage_notes(
    train: FeatureSet, test: FeatureSet, results: Sequence[ProbeResult]
) -> list[str]:
    """Sentences about what makes figures lower than the features are worth.

    Args:
      train: what probes learnt from.
      test: what they were measured on.
      results: of the probes; those over shots are looked at for classes that had fewer examples.

    Returns:
      Sentences without the name of the data set; none if every class has enough examples.
    """
    if train.labels.ndim == 2:
        return []
    notes = []
    absent = np.setdiff1d(test.labels, train.labels)
    if len(absent):
        right_at_most = np.mean(np.isin(test.labels, train.labels))
        notes.append(
            f"{len(absent)} of the test split's classes have no training example, so that at most "
            f"{right_at_most:.1%} can be right. If the splits cut files that are sorted by class, "
            "write the shards again in random order"
        )
    rows = [row for result in results for row in result.rows]
    short = {row["shots"]: row["short_classes"] for row in rows if row.get("short_classes")}
    notes += [
        f"{classes} of {train.num_classes} classes have fewer than {shots} training examples; "
        "these give all that they have"
        for shots, classes in sorted(short.items())
    ]
    return notes
