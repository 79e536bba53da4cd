"""Max-pooling in the form of XLA is that of the backend, with a gradient that can be compiled."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from vit_tf.layers import compiled_by_xla
from vit_tf.layers.max_pool import MaxPooling, max_pool


def with_gradient(images, *arguments):
    """What is pooled, and the gradient of a weighted sum of it."""
    with tf.GradientTape() as tape:
        tape.watch(images)
        pooled = max_pool(images, *arguments)
        weights = tf.reshape(tf.range(tf.size(pooled), dtype=tf.float32), tf.shape(pooled))
        loss = tf.reduce_sum(weights * pooled)
    return pooled, tape.gradient(loss, images)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("size, stride", [(3, 2), (2, 2), (3, 1), (2, 3)])
@pytest.mark.parametrize("sides", [(8, 7), (3, 12)])
def test_both_forms_agree(sides, size, stride, padding):
    tf.config.experimental.enable_op_determinism()  # as for a run on a CPU
    pixels = np.random.default_rng(0).normal(size=(2, *sides, 3)).astype(np.float32)
    images = tf.constant(pixels)
    expected, gradient = with_gradient(images, size, stride, padding)
    same = ops.max_pool(images, size, stride, padding, data_format="channels_last")
    np.testing.assert_array_equal(expected, same)

    @tf.function(jit_compile=True)
    def compiled(images):
        with compiled_by_xla(for_tpu=False):
            return with_gradient(images, size, stride, padding)

    pooled, compiled_gradient = compiled(images)
    np.testing.assert_array_equal(pooled, expected)
    np.testing.assert_allclose(compiled_gradient, gradient, rtol=1e-6)


def test_a_tpus_compiler_is_given_the_operation_itself():
    def operations(for_tpu):
        @tf.function
        def traced(images):
            with compiled_by_xla(for_tpu=for_tpu):
                return MaxPooling(3, strides=2, padding="same")(images)

        graph = traced.get_concrete_function(tf.TensorSpec((1, 8, 8, 3))).graph
        return {operation.type for operation in graph.get_operations()}

    assert "MaxPool" in operations(for_tpu=True)
    assert "MaxPool" not in operations(for_tpu=False)
