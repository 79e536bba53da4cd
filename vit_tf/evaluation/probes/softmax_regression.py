"""Multinomial logistic regression with an L2 penalty, by L-BFGS."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.optimize
import tensorflow as tf

from vit_tf.evaluation.probes.feature_blocks import Standardization, row_blocks

_KEPT_BYTES = 2**32  # features up to this size stay on the device between iterations


@dataclasses.dataclass(frozen=True)
class SoftmaxRegression:
    """A fitted classifier: the logits are `standardised features @ kernel + bias`.

    Args:
      kernel: [width, present classes].
      bias: [present classes].
      classes: the label of each column: those that have training examples.
      standardize: applied to features first.
      iterations: of L-BFGS.
      converged: whether it stopped at a small enough gradient, or where the objective's last digit
        no longer changes.
    """

    kernel: np.ndarray
    bias: np.ndarray
    classes: np.ndarray
    standardize: Standardization
    iterations: int
    converged: bool

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits [examples, present classes] of features [examples, width]."""
        return self.standardize(features, self.kernel.dtype) @ self.kernel + self.bias

    def accuracy(self, features: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> float:
        """The share of some rows whose largest logit is that of their label."""
        right = 0
        for block in row_blocks(rows, max(features.shape[1], len(self.classes))):
            predictions = self.classes[self.logits(features[block]).argmax(1)]
            right += int(np.sum(predictions == labels[block]))
        return right / len(rows)


class SoftmaxRegressionProblem:
    """Minimises `c * (sum of cross-entropies) + (sum of squared kernel weights) / 2`.

    `c` is the data's strength over the penalty, as in scikit-learn's `LogisticRegression(C=c)`.
    For two classes that has one column of weights, the difference of the two here, which halves the
    penalty on each; the same is done here. The bias bears no penalty.

    Args:
      features: [examples, width]; read in blocks.
      labels: integers [examples].
      rows: indices of the examples to learn from.
      standardize: applied to features.
      precision: `"float32"` or `"float64"`, of the arithmetic over examples; sums of losses and
        L-BFGS itself are float64.
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        rows: np.ndarray,
        standardize: Standardization,
        precision: str = "float64",
    ):
        self._features = features
        self._rows = rows
        self._standardize = standardize
        self._dtype = np.dtype(precision)
        self.classes, self._columns = np.unique(labels[rows], return_inverse=True)
        self._shape = (features.shape[1], len(self.classes))
        self._penalty = 2.0 if len(self.classes) == 2 else 1.0
        held = len(rows) * features.shape[1] * self._dtype.itemsize
        self._kept = list(self._read_blocks()) if held <= _KEPT_BYTES else None

    def solve(
        self,
        c: float,
        start: SoftmaxRegression | None = None,
        max_iter: int = 1000,
        tolerance: float = 1e-4,
    ) -> SoftmaxRegression:
        """Minimises the objective.

        Args:
          c: strength of the data over the penalty, above 0.
          start: a solution to begin at, such as that of another `c`; None: zeros.
          max_iter: iterations of L-BFGS.
          tolerance: the largest gradient, of the objective divided by `c` and the number of
            examples, at which it stops; scikit-learn's `tol`.

        Returns:
          The solution.
        """
        parameters = np.zeros((self._shape[0] + 1, self._shape[1]))
        if start is not None:
            parameters[:-1], parameters[-1] = start.kernel, start.bias
        result = scipy.optimize.minimize(
            self._objective,
            parameters.ravel(),
            args=(c,),
            jac=True,
            method="L-BFGS-B",
            # Small steps do not end it: the gradient alone says how near the minimum is.
            options={
                "maxiter": max_iter,
                "maxfun": 2 * max_iter + 100,
                "maxls": 50,
                "gtol": tolerance,
                "ftol": 64 * np.finfo(np.float64).eps,
            },
        )
        solution = result.x.reshape(parameters.shape).astype(self._dtype)
        return SoftmaxRegression(
            solution[:-1],
            solution[-1],
            self.classes,
            self._standardize,
            int(result.nit),
            bool(result.success),
        )

    def _objective(self, flat: np.ndarray, c: float) -> tuple[float, np.ndarray]:
        """The objective and its gradient, both divided by `c` and the number of examples."""
        parameters = flat.reshape(self._shape[0] + 1, self._shape[1])
        kernel, bias = (tf.constant(p, self._dtype) for p in (parameters[:-1], parameters[-1]))
        loss, gradient = 0.0, np.zeros_like(parameters)
        for x, column in self._blocks():
            block_loss, block_kernel, block_bias = _cross_entropy(kernel, bias, x, column)
            loss += float(block_loss)
            gradient[:-1] += block_kernel.numpy()
            gradient[-1] += block_bias.numpy()
        count = len(self._rows)
        penalty = self._penalty / (c * count)
        gradient /= count
        gradient[:-1] += penalty * parameters[:-1]
        return loss / count + penalty * np.sum(parameters[:-1] ** 2) / 2, gradient.ravel()

    def _blocks(self) -> Sequence | Iterator:
        return self._read_blocks() if self._kept is None else self._kept

    def _read_blocks(self) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        """Yields standardised features [rows, width] and columns [rows] of all examples."""
        places = np.arange(len(self._rows))
        for block in row_blocks(places, max(self._shape)):
            features = self._standardize(self._features[self._rows[block]], self._dtype)
            yield tf.constant(features), tf.constant(self._columns[block], tf.int32)


@tf.function(reduce_retracing=True)
def _cross_entropy(
    kernel: tf.Tensor, bias: tf.Tensor, features: tf.Tensor, columns: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The sum of cross-entropies (float64) and its gradients by kernel and bias."""
    log_probabilities = tf.nn.log_softmax(features @ kernel + bias)  # [rows, classes]
    true = tf.gather(log_probabilities, columns, batch_dims=1)
    residual = tf.exp(log_probabilities) - tf.one_hot(columns, len(bias), dtype=bias.dtype)
    return (
        -tf.reduce_sum(tf.cast(true, tf.float64)),
        tf.matmul(features, residual, transpose_a=True),
        tf.reduce_sum(residual, axis=0),
    )
