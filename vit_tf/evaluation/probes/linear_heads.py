"""Linear classifiers of frozen features, one a learning rate, trained side by side."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from vit_tf.evaluation.probes.feature_blocks import Standardization, row_blocks


class LinearHeads:
    """Heads of several features and learning rates, which see the same batches.

    The kernels of a feature's heads are one variable [width, rates * classes]: a step is one matrix
    product forward and one backward for all of them. All heads begin at zero: the problem is
    convex.

    Args:
      standardize: of each feature that heads are wanted for, applied to its values first.
      num_classes: outputs of a head.
      learning_rates: at the first step, one a head of each feature.
      momentum: of SGD.
      nesterov: whether the momentum is Nesterov's.
      weight_decay: added to the gradient, times the kernel; the bias has none.
      several_labels: whether the loss is the sigmoid's, summed over classes, not the softmax's.
      jit_compile: whether XLA compiles the step.
    """

    def __init__(
        self,
        standardize: Mapping[str, Standardization],
        num_classes: int,
        learning_rates: Sequence[float],
        momentum: float = 0.9,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        several_labels: bool = False,
        jit_compile: bool = False,
    ):
        self.num_classes = num_classes
        self.learning_rates = list(learning_rates)
        self._standardize = dict(standardize)
        self._momentum = momentum
        self._nesterov = nesterov
        self._weight_decay = weight_decay
        self._several_labels = several_labels
        outputs = len(self.learning_rates) * num_classes
        self._rates = tf.constant(np.repeat(self.learning_rates, num_classes), tf.float32)
        # By feature: kernel [width, heads * classes] and bias [heads * classes].
        self._weights = {
            name: [_zeros(len(statistics.mean), outputs), _zeros(outputs)]
            for name, statistics in self._standardize.items()
        }
        self._velocities = {
            name: [tf.Variable(tf.zeros_like(weight)) for weight in weights]
            for name, weights in self._weights.items()
        }
        self._step = tf.function(self._one_step, jit_compile=jit_compile)

    def train(
        self,
        features: Mapping[str, np.ndarray],
        labels: np.ndarray,
        rows: np.ndarray,
        batch_size: int,
        steps: int,
        seed: int,
    ) -> None:
        """Trains all heads by SGD with a learning rate that falls to 0 by a cosine.

        Args:
          features: [examples, width] by name.
          labels: integers [examples], or float targets [examples, classes].
          rows: indices of the examples to learn from.
          batch_size: examples of a step, at most.
          steps: how many.
          seed: of the order of examples.
        """
        for step, batch in enumerate(_batches(rows, batch_size, steps, seed)):
            decay = 0.5 * (1 + math.cos(math.pi * step / steps))
            values = {name: tf.constant(self._inputs(features, name, batch)) for name in features}
            self._step(values, tf.constant(labels[batch]), tf.constant(decay, tf.float32))

    def scores(
        self, features: Mapping[str, np.ndarray], name: str, head: int, rows: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields indices and logits [rows, classes] of one head, block by block."""
        outputs = slice(head * self.num_classes, (head + 1) * self.num_classes)
        kernel, bias = (weight[..., outputs] for weight in self._weights[name])
        for block in row_blocks(rows, max(features[name].shape[1], self.num_classes)):
            inputs = self._inputs(features, name, block)
            yield block, (tf.constant(inputs) @ kernel + bias).numpy()

    def weights(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Kernels [rates, width, classes] and biases [rates, classes] of a feature's heads."""
        kernel, bias = (weight.numpy() for weight in self._weights[name])
        heads = len(self.learning_rates)
        kernels = kernel.reshape(-1, heads, self.num_classes).transpose(1, 0, 2)
        return kernels, bias.reshape(heads, self.num_classes)

    def _inputs(
        self, features: Mapping[str, np.ndarray], name: str, rows: np.ndarray
    ) -> np.ndarray:
        return self._standardize[name](features[name][rows], np.float32)

    def _one_step(self, features: dict[str, tf.Tensor], labels: tf.Tensor, decay: tf.Tensor):
        targets = tf.cast(labels, tf.float32)
        if labels.shape.rank == 1:
            targets = tf.one_hot(labels, self.num_classes)  # [batch, classes]
        for name, x in features.items():
            gradients = self._gradients(self._weights[name], x, targets)
            for weight, velocity, gradient in zip(
                self._weights[name], self._velocities[name], gradients, strict=True
            ):
                velocity.assign(self._momentum * velocity + gradient)
                move = gradient + self._momentum * velocity if self._nesterov else velocity
                weight.assign_sub(decay * self._rates * move)

    def _gradients(
        self, weights: Sequence[tf.Variable], x: tf.Tensor, targets: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Gradients of the batch's mean loss, of each head by its own weights."""
        kernel, bias = weights
        logits = x @ kernel + bias  # [batch, heads * classes]
        logits = tf.reshape(logits, [len(x), len(self.learning_rates), self.num_classes])
        probabilities = tf.sigmoid(logits) if self._several_labels else tf.nn.softmax(logits)
        residual = (probabilities - targets[:, tf.newaxis]) / tf.cast(len(x), tf.float32)
        residual = tf.reshape(residual, [len(x), -1])
        gradient = tf.matmul(x, residual, transpose_a=True) + self._weight_decay * kernel
        return gradient, tf.reduce_sum(residual, axis=0)


def _zeros(*shape: int) -> tf.Variable:
    return tf.Variable(tf.zeros(shape))


def _batches(rows: np.ndarray, batch_size: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Yields full batches of shuffled epochs, which run across the epochs' borders."""
    size = min(batch_size, len(rows))
    waiting, epoch = rows[:0], 0
    for _ in range(steps):
        while len(waiting) < size:
            order = np.random.default_rng((seed, epoch)).permutation(rows)
            waiting, epoch = np.concatenate([waiting, order]), epoch + 1
        # In the order of the file: the same batch, and quicker to read.
        yield np.sort(waiting[:size])
        waiting = waiting[size:]
