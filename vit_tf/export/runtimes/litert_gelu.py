"""GELU as LiteRT's converter knows it."""

from collections import Counter
from collections.abc import Mapping

import tensorflow as tf
from tensorflow.core.framework import node_def_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def with_known_gelu(
    function: tf.types.experimental.ConcreteFunction,
) -> tf.types.experimental.ConcreteFunction:
    """The same function with the cube in the tanh form of GELU written as a power.

    The converter makes one operation of `x + 0.044715 x^3` in a GELU only where the cube is
    `Pow(x, 3)`; `layers.activations` writes `(0.044715 x^2) x`, which TensorFlow fuses on CPUs.

    Args:
      function: of one argument, with a dict of tensors as result.

    Returns:
      A concrete function without variables: weights are constants.
    """
    frozen = convert_variables_to_constants_v2(function)
    graph = frozen.graph.as_graph_def()
    nodes = {node.name: node for node in graph.node}
    readers = Counter(name for node in graph.node for name in node.input)
    three = None
    for node in list(graph.node):
        node.attr.pop("_gradient_op_type", None)  # the converter cannot take what it captures
        parts = _cube(node, nodes, readers)
        if parts is None:
            continue
        if three is None:
            three = graph.node.add(op="Const", name="three_of_gelu")
            three.attr["dtype"].type = tf.float32.as_datatype_enum
            three.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(3.0, tf.float32))
        scaled, square = parts
        square.op = "Pow"
        square.input.append(three.name)
        node.op = "Identity"
        del node.input[:]
        node.input.append(scaled.name)
    names = [tensor.name for tensor in frozen.outputs]
    keys = sorted(function.structured_outputs)  # the order in which a dict's tensors are returned
    (spec,) = function.structured_input_signature[1].values()
    images = frozen.inputs[0].name

    @tf.function(input_signature=[tf.TensorSpec(spec.shape, spec.dtype, name="images")])
    def rebuilt(images_of_caller: tf.Tensor) -> dict[str, tf.Tensor]:
        given = {images: images_of_caller}
        outputs = tf.graph_util.import_graph_def(graph, given, return_elements=names, name="")
        return dict(zip(keys, outputs, strict=True))

    return rebuilt.get_concrete_function()


def _cube(
    node: node_def_pb2.NodeDef,
    nodes: Mapping[str, node_def_pb2.NodeDef],
    readers: Mapping[str, int],
) -> tuple[node_def_pb2.NodeDef, node_def_pb2.NodeDef] | None:
    """The nodes `c * square` and `square` of `(c * square(x)) * x` that nothing else reads."""
    scaled = nodes.get(node.input[0]) if node.op == "Mul" else None
    square = nodes.get(scaled.input[1]) if scaled and scaled.op == "Mul" else None
    if not square or square.op != "Square" or square.input[0] != node.input[1]:
        return None
    return (scaled, square) if readers[scaled.name] == readers[square.name] == 1 else None
