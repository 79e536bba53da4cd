"""What layers compute between matrix products, in few operations for training on CPUs.

TensorFlow runs GELU, LayerNorm and the softmax's gradient as a dozen operations, each of which
reads and writes its whole tensor, in bfloat16 by slow kernels, and keeps most of what it wrote for
the backward pass. Here each of them is one operation forward and one backward, compiled by XLA:
computed in float32 whatever the dtype, rounded once, and with nothing kept but the input (of
softmax the output). What XLA is slow at on CPUs (matrix products, the exponentials of softmax) is
left to TensorFlow.

Between operations that are compiled one by one, these are several times as fast. Where the whole
step is compiled they bring nothing, and on TPUs an explicit mark to compile fails
(tensorflow/tensorflow #58934): see `for_step`.
"""

import math

import tensorflow as tf

_SMALLEST = 2**18  # elements; below, starting an operation costs more than it saves
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
        weights = tf.cast(tf.nn.softmax(tf.cast(x, tf.float32)), x.dtype)
        return weights, lambda upstream: _softmax_gradient(weights, upstream)

    @staticmethod
    def layer_norm(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float) -> tf.Tensor:
        """LayerNorm over the last axis."""

        @tf.custom_gradient
        def normalize(x, gamma, beta):
            def gradient(upstream):
                return _layer_norm_gradient(x, gamma, beta, upstream, epsilon)

            return _layer_norm(x, gamma, beta, epsilon), gradient

        return normalize(x, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta))


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


@_compiled
def _softmax_gradient(weights, upstream):
    wide, upstream = tf.cast(weights, tf.float32), tf.cast(upstream, tf.float32)
    mean = tf.reduce_sum(wide * upstream, -1, keepdims=True)
    return tf.cast(wide * (upstream - mean), weights.dtype)


def _normalized(x, epsilon):
    """The input with mean 0 and variance 1 over the last axis, and the inverse deviation."""
    wide = tf.cast(x, tf.float32)
    centred = wide - tf.reduce_mean(wide, -1, keepdims=True)
    inverse = tf.math.rsqrt(tf.reduce_mean(centred * centred, -1, keepdims=True) + epsilon)
    return centred * inverse, inverse


@_compiled
def _layer_norm(x, gamma, beta, epsilon):
    normal, _ = _normalized(x, epsilon)
    return tf.cast(normal * tf.cast(gamma, tf.float32) + tf.cast(beta, tf.float32), x.dtype)


@_compiled
def _layer_norm_gradient(x, gamma, beta, upstream, epsilon):
    normal, inverse = _normalized(x, epsilon)
    upstream = tf.cast(upstream, tf.float32)
    scaled = upstream * tf.cast(gamma, tf.float32)
    along = tf.reduce_mean(scaled * normal, -1, keepdims=True)
    to_input = inverse * (scaled - tf.reduce_mean(scaled, -1, keepdims=True) - normal * along)
    rows = list(range(x.shape.rank - 1))
    to_gamma = tf.reduce_sum(upstream * normal, rows)
    to_beta = tf.reduce_sum(upstream, rows)
    return tuple(
        tf.cast(g, like.dtype) for g, like in ((to_input, x), (to_gamma, gamma), (to_beta, beta))
    )
