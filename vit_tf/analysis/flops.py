"""Floating-point operations of a forward pass, counted in the graph that TensorFlow traces."""

import math

import keras
import tensorflow as tf

from vit_tf.models import without_allocation

# A forward pass, and a backward pass of about twice its cost: a product with each of its operands.
TRAINING_PASSES = 3
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_LOOPS = ("While", "StatelessWhile")


def count_flops(model: keras.Model, image_size: int | tuple[int, int] | None = None) -> int:
    """Counts the FLOPs of classifying one image.

    A multiply-add counts as two. Matrix products, convolutions and einsums are counted; element-
    wise operations, norms and softmax are not, as is usual in the field (they add about 1 %).

    Args:
        model: A model of this package, at inference.
        image_size: Side or (height, width) in pixels; the model's own by default. For another
            size the model is rebuilt from its configuration without allocating weights.

    Returns:
        FLOPs of one forward pass for one image: 2 * multiply-adds.

    Raises:
        ValueError: The model contains a loop, whose number of turns the graph does not tell.
    """
    own = tuple(model.preprocessing.image_size)
    wanted = (image_size, image_size) if isinstance(image_size, int) else image_size
    if wanted is None or tuple(wanted) == own:
        return _count_model(model)
    config = {**model.get_config(), "image_size": tuple(wanted)}
    return without_allocation(lambda: _count_model(type(model).from_config(config)))


def _count_model(model):
    facts = model.preprocessing
    images = tf.TensorSpec((1, *facts.image_size, facts.channels), tf.float32)
    # The lambda keeps the model out of tf.function's cache.
    traced = tf.function(lambda images: model(images, training=False))
    return _count_graph(traced.get_concrete_function(images).graph)


def _count_graph(graph):
    return sum(_count_operation(operation, graph) for operation in graph.get_operations())


def _count_operation(operation, graph):
    if operation.type in _LOOPS:
        raise ValueError(
            f"FLOPs of the loop {operation.name!r} are unknown: the graph does not tell how often "
            "it turns."
        )
    if operation.type in _CALLS:
        # TensorFlow offers no public way from a call to the called function's graph.
        return _count_graph(graph._get_function(operation.get_attr("f").name).graph)
    multiply_adds = _MULTIPLY_ADDS.get(operation.type)
    return 2 * multiply_adds(operation) if multiply_adds else 0


def _matmul(operation):
    transposed = "transpose_a" if operation.type == "MatMul" else "adj_x"
    contracted = operation.inputs[0].shape[-2 if operation.get_attr(transposed) else -1]
    return operation.outputs[0].shape.num_elements() * contracted


def _convolution(operation):
    *window, channels_in, _ = operation.inputs[1].shape
    return operation.outputs[0].shape.num_elements() * math.prod(window) * channels_in


def _depthwise_convolution(operation):
    rows, columns, _, _ = operation.inputs[1].shape
    return operation.outputs[0].shape.num_elements() * rows * columns


def _einsum(operation):
    equation = operation.get_attr("equation").decode()
    inputs = equation.split("->")[0].split(",")
    sizes = {}
    for letters, tensor in zip(inputs, operation.inputs, strict=True):
        if "." in letters:
            raise ValueError(f"FLOPs of the einsum {equation!r} with an ellipsis are unknown.")
        sizes.update(zip(letters, tensor.shape, strict=True))
    return math.prod(sizes.values())


_MULTIPLY_ADDS = {
    "BatchMatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "BatchMatMulV3": _matmul,
    "Conv2D": _convolution,
    "Conv3D": _convolution,
    "DepthwiseConv2dNative": _depthwise_convolution,
    "Einsum": _einsum,
    "MatMul": _matmul,
}
