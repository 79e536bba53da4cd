"""What layers compute, in few operations that are fast on CPUs, for training there.

TensorFlow runs GELU, LayerNorm and the softmax's gradient as a dozen operations, each of which
reads and writes its whole tensor, in bfloat16 by slow kernels, and keeps most of what it wrote for
the backward pass. Here each of them is one operation forward and one backward, compiled by XLA:
computed in float32 whatever the dtype, rounded once, and with nothing kept but the input (of
softmax the output). What XLA is slow at on CPUs (matrix products, the exponentials of softmax) is
left to TensorFlow. Sums are products with ones: of rows in XLA, which would add up one number after
the other; of columns in TensorFlow, whose gradient of a bias is slow and in bfloat16 adds up in
bfloat16, with an error of 6 % over 3,152 rows of random numbers instead of 0.1 %.

Adam's update of a weight is one operation too.

Between operations that are compiled one by one, these are several times as fast. Where the whole
step is compiled they bring nothing, and on TPUs an explicit mark to compile fails
(tensorflow/tensorflow #58934): see `for_step`.
"""

import functools
import math

import keras
import tensorflow as tf

_SMALLEST = 2**18  # elements; below, starting an operation costs more than it saves
_TILE = 16  # rows that a processor's matrix unit multiplies at once
_DTYPES = (tf.float32, tf.bfloat16)
_SQRT_HALF = math.sqrt(0.5)
_SQRT_2_OVER_PI = math.sqrt(2.0 / math.pi)
_CUBIC = 0.044715  # of the tanh approximation (Hendrycks and Gimpel 2016)


class CPUKernels:
    """`layers.kernels.Kernels` of operations that XLA compiles one by one."""

    def pays(self, x: tf.Tensor) -> bool:
        """Whether the tensor is large, its shape known and its dtype one that was measured."""
        if not isinstance(x, tf.Tensor):  # symbolic: a model is being built
            return False
        size = x.shape.num_elements()
        return size is not None and size >= _SMALLEST and x.dtype in _DTYPES

    @staticmethod
    @tf.custom_gradient
    def linear(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tuple[tf.Tensor, object]:
        """Product of two matrices, plus a bias."""

        def gradient(upstream):
            to_x = tf.matmul(upstream, kernel, transpose_b=True)
            return to_x, tf.matmul(x, upstream, transpose_a=True), _column_sums(upstream)

        return tf.nn.bias_add(tf.matmul(x, kernel), bias), gradient

    @staticmethod
    @tf.custom_gradient
    def gelu(x: tf.Tensor) -> tuple[tf.Tensor, object]:
        """Exact GELU."""
        return _gelu(x), lambda upstream: _gelu_gradient(x, upstream)

    @staticmethod
    @tf.custom_gradient
    def gelu_tanh(x: tf.Tensor) -> tuple[tf.Tensor, object]:
        """The tanh approximation of GELU."""
        return _gelu_tanh(x), lambda upstream: _gelu_tanh_gradient(x, upstream)

    @staticmethod
    @tf.custom_gradient
    def softmax(x: tf.Tensor) -> tuple[tf.Tensor, object]:
        """Softmax over the last axis."""
        dtype = x.dtype if _softmax_is_exact(x.dtype) else tf.float32
        weights = tf.cast(tf.nn.softmax(tf.cast(x, dtype)), x.dtype)
        return weights, lambda upstream: _softmax_gradient(weights, upstream)

    @staticmethod
    def layer_norm(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float) -> tf.Tensor:
        """LayerNorm over the last axis."""

        @tf.custom_gradient
        def normalize(x, gamma, beta):
            def gradient(upstream):
                to_x, products = _layer_norm_gradient(x, gamma, upstream, epsilon)
                to_gamma, to_beta = map(_column_sums, (products, upstream))
                return to_x, tf.cast(to_gamma, gamma.dtype), tf.cast(to_beta, beta.dtype)

            return _layer_norm(x, gamma, beta, epsilon), gradient

        return normalize(x, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta))

    def updates(
        self, optimizer: keras.optimizers.Optimizer, gradient: tf.Tensor, weight: tf.Variable
    ) -> bool:
        """Whether there is an `update` for this optimizer and it is faster for this weight."""
        plain = type(optimizer) in (keras.optimizers.Adam, keras.optimizers.AdamW)
        return (
            plain
            and not optimizer.amsgrad
            and gradient.dtype == weight.dtype == tf.float32
            and self.pays(gradient)
        )

    @staticmethod
    def update(
        optimizer: keras.optimizers.Adam,
        gradient: tf.Tensor,
        weight: tf.Variable,
        learning_rate: tf.Tensor,
        decay: tf.Tensor,
    ) -> None:
        """What `optimizer.update_step` does, after the weight lost a share of `decay`."""
        place = optimizer._get_variable_index(weight)
        changing = (weight, optimizer._momentums[place], optimizer._velocities[place])
        steps = tf.cast(tf.convert_to_tensor(optimizer.iterations) + 1, tf.float32)
        beta_1, beta_2, epsilon = optimizer.beta_1, optimizer.beta_2, optimizer.epsilon
        rate = learning_rate * tf.sqrt(1 - beta_2**steps) / (1 - beta_1**steps)
        scales = tf.stack([1 - decay, rate])
        values = map(tf.convert_to_tensor, changing)
        changed = _adam(*values, gradient, scales, beta_1, beta_2, epsilon)
        for variable, value in zip(changing, changed, strict=True):
            optimizer.assign(variable, value)


def for_step(strategy: tf.distribute.Strategy, compiled: bool) -> CPUKernels | None:
    """The kernels for a training step, or None where they would not pay.

    Args:
      strategy: where the step runs; kernels are for CPUs alone.
      compiled: whether XLA compiles the step itself.
    """
    on_cpus = all("CPU" in device.upper() for device in strategy.extended.worker_devices)
    return CPUKernels() if on_cpus and not compiled else None


def _compiled(function):
    return tf.function(function, jit_compile=True, autograph=False)


def _column_sums(x: tf.Tensor) -> tf.Tensor:
    """Sums over all axes but the last, added up in float32.

    They do not depend on threads: oneDNN shares the addends of a product with a single row among
    those that are free, of which a step that follows an operation of XLA may have one or all.
    """
    rows = tf.reshape(x, [-1, x.shape[-1]])
    return tf.matmul(tf.ones([_TILE, rows.shape[0]], x.dtype), rows)[0]


def _row_means(x: tf.Tensor) -> tf.Tensor:
    """Means over the last axis, which stays; for XLA."""
    *outer, width = x.shape
    means = tf.linalg.matvec(tf.reshape(x, [-1, width]), tf.fill([width], 1 / width))
    return tf.reshape(means, [*outer, 1])


@_compiled
def _gelu(x):
    wide = tf.cast(x, tf.float32)
    return tf.cast(0.5 * wide * (1.0 + tf.math.erf(wide * _SQRT_HALF)), x.dtype)


@_compiled
def _gelu_gradient(x, upstream):
    wide = tf.cast(x, tf.float32)
    cumulative = 0.5 * (1.0 + tf.math.erf(wide * _SQRT_HALF))
    density = tf.exp(-0.5 * wide * wide) * (0.5 * _SQRT_2_OVER_PI)
    return tf.cast(tf.cast(upstream, tf.float32) * (cumulative + wide * density), x.dtype)


def _tanh_of(wide):
    return tf.tanh(_SQRT_2_OVER_PI * (wide + _CUBIC * wide * wide * wide))


@_compiled
def _gelu_tanh(x):
    wide = tf.cast(x, tf.float32)
    return tf.cast(0.5 * wide * (1.0 + _tanh_of(wide)), x.dtype)


@_compiled
def _gelu_tanh_gradient(x, upstream):
    wide = tf.cast(x, tf.float32)
    tanh = _tanh_of(wide)
    inner = _SQRT_2_OVER_PI * (1.0 + 3.0 * _CUBIC * wide * wide)
    slope = 0.5 * (1.0 + tanh) + 0.5 * wide * (1.0 - tanh * tanh) * inner
    return tf.cast(tf.cast(upstream, tf.float32) * slope, x.dtype)


@functools.cache
def _softmax_is_exact(dtype: tf.DType) -> bool:
    """Whether TensorFlow computes this softmax in float32 and rounds the result.

    Of bfloat16 oneDNN does; without it, all is computed in bfloat16.
    """
    with tf.init_scope():
        values = tf.cast(tf.linspace(-4.0, 4.0, 1024), dtype)
        exact = tf.nn.softmax(tf.cast(values, tf.float32))
        return bool(tf.reduce_all(tf.nn.softmax(values) == tf.cast(exact, dtype)))


@_compiled
def _softmax_gradient(weights, upstream):
    wide, upstream = tf.cast(weights, tf.float32), tf.cast(upstream, tf.float32)
    sums = _row_means(wide * upstream) * weights.shape[-1]
    return tf.cast(wide * (upstream - sums), weights.dtype)


def _normalized(x, epsilon):
    """The input with mean 0 and variance 1 over the last axis, and the inverse deviation."""
    wide = tf.cast(x, tf.float32)
    centred = wide - _row_means(wide)
    inverse = tf.math.rsqrt(_row_means(centred * centred) + epsilon)
    return centred * inverse, inverse


@_compiled
def _layer_norm(x, gamma, beta, epsilon):
    normal, _ = _normalized(x, epsilon)
    return tf.cast(normal * tf.cast(gamma, tf.float32) + tf.cast(beta, tf.float32), x.dtype)


@_compiled
def _layer_norm_gradient(x, gamma, upstream, epsilon):
    """The gradient to the input, and what summed over rows is that to gamma."""
    normal, inverse = _normalized(x, epsilon)
    upstream = tf.cast(upstream, tf.float32)
    scaled = upstream * tf.cast(gamma, tf.float32)
    to_input = inverse * (scaled - _row_means(scaled) - normal * _row_means(scaled * normal))
    return tf.cast(to_input, x.dtype), upstream * normal


@_compiled
def _adam(weight, momentum, velocity, gradient, scales, beta_1, beta_2, epsilon):
    """New weight, momentum and velocity; `scales` are of the weight and of the update."""
    momentum += (gradient - momentum) * (1 - beta_1)
    velocity += (gradient * gradient - velocity) * (1 - beta_2)
    update = momentum * scales[1] / (tf.sqrt(velocity) + epsilon)
    return weight * scales[0] - update, momentum, velocity
