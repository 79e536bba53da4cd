"""On CPUs TensorFlow runs product, bias and GELU of an MLP as one operation, in evaluation too."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tensorflow.python.grappler import tf_optimizer
from tensorflow.python.util import _pywrap_util_port

from vit_tf.models import create_model

TINY = {"image_size": 16, "patch_size": 8, "width": 16, "depth": 3, "num_heads": 2, "mlp_dim": 32}

needs_onednn = pytest.mark.skipif(
    not _pywrap_util_port.IsMklEnabled(), reason="TensorFlow fuses GELU with oneDNN alone"
)


def operations(model) -> Counter:
    """Operations of the graph that TensorFlow's optimizer makes, fused ones with their parts."""
    spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)
    function = tf.function(lambda images: model(images, training=False), input_signature=[spec])
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    graph = frozen.graph.as_graph_def()
    meta = tf.compat.v1.train.export_meta_graph(graph_def=graph, graph=frozen.graph)
    for node in meta.graph_def.node:
        node.device = "/device:CPU:0"
    meta.collection_def["train_op"].node_list.value.extend(t.name for t in frozen.outputs)
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1
    optimized = tf_optimizer.OptimizeGraph(config, meta)
    return Counter(
        (node.op, *(part.decode() for part in node.attr["fused_ops"].list.s))
        for node in optimized.node
    )


@needs_onednn
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    ("activation", "fused"), [("gelu", "GeluExact"), ("gelu_tanh", "GeluApproximate")]
)
def test_each_block_has_one_operation_for_its_gelu(activation, fused, dtype):
    model = create_model("vit", num_classes=4, activation=activation, dtype=dtype, **TINY)
    for weight in model.weights:  # zeros would be optimized away
        weight.assign(weight + np.random.default_rng(0).normal(0, 0.1, weight.shape))
    found = operations(model)
    assert found["_FusedMatMul", "BiasAdd", fused] == 3
    assert not found["Tanh",] and not found["Erf",]
    assert not found["BiasAdd",], "no bias is added by itself"
