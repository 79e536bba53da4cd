"""Sums over a support set of any size from which its ridge regression follows."""

import numpy as np
import scipy.sparse

from vit_tf.evaluation.probes.feature_blocks import row_blocks


class SupportSums:
    """Sums over examples: of features, of their products, and of the features of each class.

    Examples are read in blocks, so that they may outgrow memory, and can be added to: nested
    support sets share the products of the smaller ones. Targets are never made:
    `X'[one-hot] = [sums of classes]'`.

    Args:
      num_classes: of all.
      precision: "float32" or "float64", of a block's products; sums over blocks are float64.

    Attributes:
      count: of examples.
      origin: [width], subtracted from features first, so that little cancels later.
      total: [width] sum of features.
      gram: [width, width] sum of products of features.
      class_totals: [classes, width] sums of features of each class.
      class_counts: [classes].
    """

    def __init__(self, num_classes: int, precision: str):
        self.precision = precision
        self.count = 0
        self.class_counts = np.zeros(num_classes, np.int64)

    def add(self, features: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> None:
        """Adds examples.

        Args:
          features: [examples, width].
          rows: indices of the examples to add, none of them added before.
          labels: [rows] their classes.
        """
        width = features.shape[1]
        for part in row_blocks(np.arange(len(rows)), width):
            block = features[rows[part]].astype(self.precision, copy=False)
            if not self.count:
                self.origin = block.mean(0, dtype=np.float64).astype(self.precision)
                self.total = np.zeros(width)
                self.gram = np.zeros((width, width))
                self.class_totals = np.zeros((len(self.class_counts), width))
            block = block - self.origin
            self.count += len(block)
            self.total += block.sum(0, dtype=np.float64)
            self.gram += block.T @ block
            present, sums = _class_sums(block, labels[part])
            self.class_totals[present] += sums
        self.class_counts += np.bincount(labels, minlength=len(self.class_counts))


def _class_sums(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes there are, and the sum of the features of each: [classes there are, width]."""
    present, position = np.unique(labels, return_inverse=True)
    ones = np.ones(len(labels), features.dtype)
    shape = (len(present), len(labels))
    one_hot = scipy.sparse.csr_array((ones, (position, np.arange(len(labels)))), shape=shape)
    return present, one_hot @ features
