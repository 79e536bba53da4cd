"""What a SavedModel is worth on a whole split, called as clients call it."""

from collections.abc import Callable
from typing import Any

from vit_tf.data import Input
from vit_tf.evaluation.accuracy import measure_accuracy
from vit_tf.evaluation.featurizers import SavedModelFeaturizer


def served_accuracy(data: Input) -> Callable[[str], dict[str, Any]]:
    """Makes a function of a SavedModel's folder that measures it on a split.

    Args:
      data: the split; its encoded images are given to the SavedModel.

    Returns:
      A function that returns `Accuracy.figures`.
    """

    def measure(folder: str) -> dict[str, Any]:
        served = SavedModelFeaturizer(folder)
        found = measure_accuracy(
            lambda images: served.run(images, ["logits"])["logits"],
            served.batches(data, None, 0),
            data.num_classes,
            data.class_names,
        )
        return found.figures()

    return measure
