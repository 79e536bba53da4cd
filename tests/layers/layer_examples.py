"""An example of every layer, and weights that depend on nothing but their paths."""

import dataclasses
import inspect
import zlib
from typing import Any

import keras
import numpy as np

from vit_tf import layers


@dataclasses.dataclass(frozen=True)
class Example:
    """A layer's class and configuration, the shapes of its input and output, more for its call."""

    layer_class: type[keras.layers.Layer]
    config: dict[str, Any]
    given: tuple[int, ...]
    expected: tuple[int, ...]
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)

    def create(self, dtype="float32"):
        """A built layer, the same random seeds and weights every time."""
        keras.utils.set_random_seed(0)
        layer = self.layer_class(**self.config, dtype=dtype, name="layer")
        layer(self.inputs, **self.arguments)
        return set_weights_by_path(layer)

    @property
    def inputs(self):
        """float32 of the input's shape."""
        return np.random.default_rng(0).normal(size=self.given).astype(np.float32)


def _bottleneck(layer_class, **config):
    return Example(layer_class, {"filters": 32, **config}, (2, 4, 4, 64), (2, 2, 2, 128))


def _like_input(layer_class, **config):
    return Example(layer_class, config, (2, 5, 6), (2, 5, 6))


_STANDARDIZED = {"filters": 5, "kernel_size": 3, "strides": 2}
_FLEXIBLE = {"width": 6, "patch_size": (2, 4)}
_ENCODER = {"num_heads": 2, "mlp_dim": 8, "dropout": 0.1, "attention_dropout": 0.1}
_LEVIT = {"num_heads": 2, "key_dim": 3, "value_dim": 4, "grid_size": (3, 2)}
EXAMPLES = {
    "PatchEmbedding": Example(layers.PatchEmbedding, _FLEXIBLE, (2, 4, 8, 3), (2, 2, 2, 6)),
    "FlexiblePatchEmbedding": Example(
        layers.FlexiblePatchEmbedding, _FLEXIBLE, (2, 4, 8, 3), (2, 2, 2, 6)
    ),
    "FlexiblePatchEmbedding, another patch": Example(
        layers.FlexiblePatchEmbedding,
        _FLEXIBLE,
        (2, 6, 8, 3),
        (2, 2, 4, 6),
        {"patch_size": (3, 2)},
    ),
    "ConvStem": Example(
        layers.ConvStem, {"width": 6, "widths": (4, 4, 5)}, (2, 7, 8, 3), (2, 2, 2, 6)
    ),
    "ConvEmbedding": Example(
        layers.ConvEmbedding,
        {"width": 6, "kernel_size": 3, "strides": 2, "padding": 1},
        (2, 5, 8, 3),
        (2, 3, 4, 6),
    ),
    "ConvProjectionAttention": _like_input(
        layers.ConvProjectionAttention, num_heads=2, grid_size=(1, 4), attention_dropout=0.1
    ),
    "ConvProjectionAttention, no class token": _like_input(
        layers.ConvProjectionAttention,
        num_heads=1,
        grid_size=(5, 1),
        kernel_size=5,
        key_value_stride=3,
    ),
    "ConvProjectionBlock": _like_input(
        layers.ConvProjectionBlock,
        **_ENCODER,
        grid_size=(2, 2),
        activation="quick_gelu",
        initialization="deit",
    ),
    "ConvTokenizer": Example(
        layers.ConvTokenizer, {"widths": (4, 6), "kernel_size": 3}, (2, 7, 8, 3), (2, 2, 2, 6)
    ),
    "ConvTokenizer, strides": Example(
        layers.ConvTokenizer,
        {"widths": (6,), "kernel_size": 4, "stride": 3, "padding": 0},
        (2, 8, 11, 3),
        (2, 1, 2, 6),
    ),
    "CMTStem": Example(layers.CMTStem, {"width": 5}, (2, 7, 8, 3), (2, 4, 4, 5)),
    "CMTBlock": Example(
        layers.CMTBlock, {**_ENCODER, "grid_size": (3, 4)}, (2, 3, 4, 6), (2, 3, 4, 6)
    ),
    "ReducedAttention": _like_input(
        layers.ReducedAttention, num_heads=3, grid_size=(5, 1), attention_dropout=0.1
    ),
    "ReducedAttention, fewer keys": Example(
        layers.ReducedAttention,
        {"num_heads": 2, "grid_size": (4, 5), "reduction": 2},
        (2, 20, 6),
        (2, 20, 6),
    ),
    "InvertedResidualMLP": Example(
        layers.InvertedResidualMLP, {"mlp_dim": 8, "dropout": 0.1}, (2, 3, 4, 6), (2, 3, 4, 6)
    ),
    "PairPositions": Example(
        layers.PairPositions,
        {"query_grid": (2, 3), "key_grid": (1, 2), "stddev": 0.5},
        (2, 3, 6, 2),
        (2, 3, 6, 2),
    ),
    "ClassToken": Example(layers.ClassToken, {}, (2, 5, 6), (2, 6, 6)),
    "RegisterTokens": Example(
        layers.RegisterTokens, {"num_registers": 3, "offset": 1}, (2, 5, 6), (2, 8, 6)
    ),
    "LearnedPositionEmbedding": _like_input(layers.LearnedPositionEmbedding, stddev=0.1),
    "GridPositionEmbedding": _like_input(
        layers.GridPositionEmbedding, grid_size=(1, 5), stddev=0.1
    ),
    "GridPositionEmbedding, another grid": Example(
        layers.GridPositionEmbedding,
        {"grid_size": (3, 4)},
        (2, 6, 6),
        (2, 6, 6),
        {"grid_size": (1, 6)},
    ),
    "SinCos1DPositionEmbedding": _like_input(layers.SinCos1DPositionEmbedding),
    "SinCos2DPositionEmbedding": Example(
        layers.SinCos2DPositionEmbedding, {"grid_size": (2, 3)}, (2, 7, 8), (2, 7, 8)
    ),
    "MultiHeadSelfAttention": _like_input(
        layers.MultiHeadSelfAttention, num_heads=2, attention_dropout=0.1
    ),
    "MultiHeadSelfAttention, no biases": _like_input(
        layers.MultiHeadSelfAttention, num_heads=3, qkv_bias=False
    ),
    "MLP": _like_input(layers.MLP, mlp_dim=8, activation="gelu", dropout=0.1),
    "MixerBlock": _like_input(
        layers.MixerBlock,
        tokens_mlp_dim=4,
        channels_mlp_dim=8,
        dropout=0.1,
        stochastic_depth=0.1,
    ),
    "BatchNorm": _like_input(layers.BatchNorm, momentum=0.9, epsilon=1e-5),
    "LinearNorm": Example(
        layers.LinearNorm, {"features": 4, "gamma_initializer": "zeros"}, (2, 5, 6), (2, 5, 4)
    ),
    "NormLinear": Example(layers.NormLinear, {"units": 4}, (3, 6), (3, 4)),
    "NormedMLP": _like_input(layers.NormedMLP, mlp_dim=8, activation="relu"),
    "OffsetAttention": Example(layers.OffsetAttention, _LEVIT, (2, 6, 6), (2, 6, 6)),
    "SubsamplingAttention": Example(
        layers.SubsamplingAttention, {**_LEVIT, "width": 8, "stride": 2}, (2, 6, 6), (2, 2, 8)
    ),
    "LeViTStem": Example(layers.LeViTStem, {"widths": (4, 6)}, (2, 7, 8, 3), (2, 2, 2, 6)),
    "LeViTStage": Example(
        layers.LeViTStage, {"depth": 2, "mlp_dim": 8, **_LEVIT}, (2, 6, 6), (2, 6, 6)
    ),
    "LeViTStage, no MLP": Example(
        layers.LeViTStage,
        {"depth": 1, "mlp_dim": 0, "stochastic_depth": 0.1, **_LEVIT},
        (2, 6, 6),
        (2, 6, 6),
    ),
    "LeViTDownSampling": Example(
        layers.LeViTDownSampling,
        {"width": 8, "mlp_dim": 8, "stride": 2, "stochastic_depth": 0.1, **_LEVIT},
        (2, 6, 6),
        (2, 2, 8),
    ),
    "StochasticDepth": _like_input(layers.StochasticDepth, rate=0.2, seed=3),
    "LayerNorm": _like_input(layers.LayerNorm, epsilon=1e-6),
    "LayerScale": _like_input(layers.LayerScale, initial_value=0.1),
    "EncoderBlock": _like_input(
        layers.EncoderBlock, **_ENCODER, stochastic_depth=0.1, layer_scale_init=0.1
    ),
    "EncoderBlock, DeiT": _like_input(
        layers.EncoderBlock, **_ENCODER, activation="gelu", initialization="deit"
    ),
    "CompactEncoderBlock": _like_input(
        layers.CompactEncoderBlock, **_ENCODER, activation="gelu", stochastic_depth=0.1
    ),
    "SequencePooling": Example(layers.SequencePooling, {}, (2, 5, 6), (2, 6)),
    "TokenPredictor": Example(layers.TokenPredictor, {}, (2, 5, 8), (2, 5, 2)),
    "MAPHead": Example(layers.MAPHead, {"num_heads": 2, "mlp_dim": 8}, (2, 5, 6), (2, 6)),
    "StandardizedConv2D": Example(
        layers.StandardizedConv2D, _STANDARDIZED, (2, 4, 7, 3), (2, 2, 4, 5)
    ),
    "StandardizedConv2D, Big Transfer": Example(
        layers.StandardizedConv2D,
        {**_STANDARDIZED, "epsilon": 1e-10, "epsilon_in_root": True, "padding": "symmetric"},
        (2, 4, 7, 3),
        (2, 2, 4, 5),
    ),
    "BottleneckUnit": _bottleneck(layers.BottleneckUnit, strides=2),
    "PreactivationUnit": _bottleneck(layers.PreactivationUnit, strides=2),
    "ResNetStage": _bottleneck(layers.ResNetStage, depth=2, strides=2),
    "ResNetStage, Big Transfer": _bottleneck(
        layers.ResNetStage, depth=2, strides=2, preactivation=True
    ),
    "ResNetStem": Example(
        layers.ResNetStem,
        {"stages": (2, 1), "width_factor": 0.5},
        (2, 16, 24, 3),
        (2, 2, 3, 256),
    ),
}


def public_layers():
    """The layer classes that `vit_tf.layers` exports."""
    public = (getattr(layers, name) for name in layers.__all__)
    return {
        member
        for member in public
        if inspect.isclass(member) and issubclass(member, keras.layers.Layer)
    }


def set_weights_by_path(layer):
    """Gives a layer or model weights of a usual scale, none zero, the same on every backend."""
    for weight in layer.weights:
        random = np.random.default_rng(zlib.crc32(weight.path.encode()))
        value = random.normal(size=weight.shape)
        if weight.path.endswith(("gamma", "variance")):
            value = np.exp(0.3 * value)
        elif weight.path.endswith("kernel"):
            value /= np.sqrt(np.prod(weight.shape[:-1]))
        else:
            value *= 0.3
        weight.assign(value.astype(np.float32))
    return layer
