"""Linear classifiers of standardised features, and their predictions block by block."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vit_tf.evaluation.probes.feature_blocks import Standardization

_BLOCK_VALUES = 2**23  # of features or of scores at a time: 32 MiB of float32


@dataclasses.dataclass(frozen=True)
class LinearClassifier:
    """Scores of classes, linear in standardised features.

    Args:
      standardization: what is done to features first.
      kernel: [width, classes], of standardised features.
      bias: float64 [classes].
    """

    standardization: Standardization
    kernel: np.ndarray
    bias: np.ndarray

    def of_raw_features(
        self, origin: np.ndarray, dtype: np.typing.DTypeLike
    ) -> tuple[np.ndarray, np.ndarray]:
        """Kernel and bias that give the same scores from `features - origin`."""
        kernel = self.kernel / self.standardization.deviation[:, None]
        bias = self.bias - (self.standardization.mean - origin) @ kernel
        return kernel.astype(dtype), bias.astype(dtype)

    def scores(self, features: np.ndarray, dtype: np.typing.DTypeLike = "float64") -> np.ndarray:
        """Scores [examples, classes] of features [examples, width]."""
        origin = self.standardization.mean
        kernel, bias = self.of_raw_features(origin, dtype)
        return (features - origin).astype(dtype) @ kernel + bias


def predict(
    classifiers: Sequence[LinearClassifier],
    features: np.ndarray,
    dtype: np.typing.DTypeLike = "float32",
) -> np.ndarray:
    """Classes of the highest scores, of equal ones the first.

    Features are read and shifted once for all classifiers; scores of no more than a block exist at
    a time.

    Args:
      classifiers: of equally many classes.
      features: [examples, width], which may be mapped from a file.
      dtype: of the scores.

    Returns:
      Integers [classifiers, examples].
    """
    # Near the features' means, so that little cancels where these exceed the deviations.
    origin = classifiers[-1].standardization.mean
    kernels = [np.vstack(c.of_raw_features(origin, dtype)) for c in classifiers]  # bias below
    width, num_classes = kernels[0].shape
    length = min(len(features), max(1, _BLOCK_VALUES // max(width, num_classes)))
    block = np.ones((length, width), dtype)  # its last column is the bias's
    scores = np.empty((length, num_classes), dtype)
    predictions = np.empty((len(classifiers), len(features)), np.int64)
    for first in range(0, len(features), length):
        part = slice(first, min(first + length, len(features)))
        count = part.stop - first
        np.subtract(features[part], origin.astype(dtype), out=block[:count, :-1])
        for number, kernel in enumerate(kernels):
            np.matmul(block[:count], kernel, out=scores[:count])
            scores[:count].argmax(1, out=predictions[number, part])
    return predictions
