"""Keras layers of which the models are built; one concept a file."""

from vit_tf.layers.activations import get_activation
from vit_tf.layers.attention import MultiHeadSelfAttention
from vit_tf.layers.batch_norm import BatchNorm, batch_norm, foldable_norms
from vit_tf.layers.bottleneck import BottleneckUnit, PreactivationUnit
from vit_tf.layers.class_token import ClassToken
from vit_tf.layers.cmt_block import CMTBlock
from vit_tf.layers.cmt_stem import CMTStem
from vit_tf.layers.compact_encoder_block import CompactEncoderBlock
from vit_tf.layers.conv_embedding import ConvEmbedding
from vit_tf.layers.conv_projection import ConvProjectionAttention
from vit_tf.layers.conv_projection_block import ConvProjectionBlock
from vit_tf.layers.conv_stem import ConvStem, default_stem_strides
from vit_tf.layers.conv_tokenizer import ConvTokenizer, tokenizer_stride
from vit_tf.layers.encoder_block import EncoderBlock
from vit_tf.layers.flexible_patch_embedding import FlexiblePatchEmbedding
from vit_tf.layers.initialization import get_initializer
from vit_tf.layers.intermediates import NOWHERE, Intermediates
from vit_tf.layers.inverted_residual import InvertedResidualMLP
from vit_tf.layers.kernels import LayerNorm
from vit_tf.layers.layer_scale import LayerScale
from vit_tf.layers.levit_stage import LeViTDownSampling, LeViTStage, NormedMLP
from vit_tf.layers.levit_stem import LeViTStem
from vit_tf.layers.linear_norm import LinearNorm, NormLinear
from vit_tf.layers.map_head import MAPHead
from vit_tf.layers.mixer_block import MixerBlock
from vit_tf.layers.mlp import MLP
from vit_tf.layers.offset_attention import OffsetAttention, SubsamplingAttention
from vit_tf.layers.pair_positions import PairPositions
from vit_tf.layers.patch_embedding import PatchEmbedding
from vit_tf.layers.position_embedding import (
    GridPositionEmbedding,
    LearnedPositionEmbedding,
    SinCos1DPositionEmbedding,
    SinCos2DPositionEmbedding,
    sincos1d,
    sincos2d,
)
from vit_tf.layers.products import compiled_by_xla, is_compiled_by_xla
from vit_tf.layers.reduced_attention import ReducedAttention
from vit_tf.layers.register_tokens import RegisterTokens
from vit_tf.layers.resampling import pseudo_inverse_matrix, resample, resize_matrix
from vit_tf.layers.resnet import ResNetStage, ResNetStem
from vit_tf.layers.sequence_pooling import SequencePooling
from vit_tf.layers.standardized_conv import StandardizedConv2D
from vit_tf.layers.stochastic_depth import StochasticDepth, constant_rates, linear_rates
from vit_tf.layers.token_predictor import (
    TokenPredictor,
    gumbel_noise,
    straight_through_decision,
)

__all__ = [
    "MLP",
    "NOWHERE",
    "BatchNorm",
    "BottleneckUnit",
    "CMTBlock",
    "CMTStem",
    "ClassToken",
    "CompactEncoderBlock",
    "ConvEmbedding",
    "ConvProjectionAttention",
    "ConvProjectionBlock",
    "ConvStem",
    "ConvTokenizer",
    "EncoderBlock",
    "FlexiblePatchEmbedding",
    "GridPositionEmbedding",
    "Intermediates",
    "InvertedResidualMLP",
    "LayerNorm",
    "LayerScale",
    "LeViTDownSampling",
    "LeViTStage",
    "LeViTStem",
    "LearnedPositionEmbedding",
    "LinearNorm",
    "MAPHead",
    "MixerBlock",
    "MultiHeadSelfAttention",
    "NormLinear",
    "NormedMLP",
    "OffsetAttention",
    "PairPositions",
    "PatchEmbedding",
    "PreactivationUnit",
    "ReducedAttention",
    "RegisterTokens",
    "ResNetStage",
    "ResNetStem",
    "SequencePooling",
    "SinCos1DPositionEmbedding",
    "SinCos2DPositionEmbedding",
    "StandardizedConv2D",
    "StochasticDepth",
    "SubsamplingAttention",
    "TokenPredictor",
    "batch_norm",
    "compiled_by_xla",
    "constant_rates",
    "default_stem_strides",
    "foldable_norms",
    "get_activation",
    "get_initializer",
    "gumbel_noise",
    "is_compiled_by_xla",
    "linear_rates",
    "pseudo_inverse_matrix",
    "resample",
    "resize_matrix",
    "sincos1d",
    "sincos2d",
    "straight_through_decision",
    "tokenizer_stride",
]
