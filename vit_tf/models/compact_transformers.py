"""Compact Transformers (Hassani et al. 2021, "Escaping the Big Data Paradigm with ...").

Three steps from ViT to transformers that learn from small data: ViT-Lite is small and cuts small
patches, CVT pools the sequence instead of reading a class token, CCT makes tokens by convolutions.
Numbers, defaults and the encoder's block are those of SHI-Labs/Compact-Transformers.
"""

import keras

from vit_tf.layers import (
    CompactEncoderBlock,
    ConvTokenizer,
    SequencePooling,
    SinCos1DPositionEmbedding,
)
from vit_tf.layers import tokenizer_stride as total_stride
from vit_tf.models.arguments import check_count
from vit_tf.models.registry import register, register_family
from vit_tf.models.vit import ViT

# Number of blocks -> width, heads, MLP width as a multiple of the width.
_SIZES = {
    2: (128, 2, 1),
    4: (128, 2, 1),
    6: (256, 4, 2),
    7: (256, 4, 2),
    14: (384, 6, 3),
}
_BICUBIC = {"interpolation": "bicubic", "antialias": True}
# Image size, number of classes and preprocessing of the data that a variant was published for.
_CIFAR10 = {
    "image_size": 32,
    "num_classes": 10,
    "preprocessing": {
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2470, 0.2435, 0.2616),
        "crop_ratio": 1.0,
        **_BICUBIC,
    },
}
_FLOWERS102 = {
    "image_size": 224,
    "num_classes": 102,
    "preprocessing": {
        "mean": (0.4353, 0.3773, 0.2872),
        "std": (0.2966, 0.2455, 0.2698),
        "crop_ratio": 1.0,
        **_BICUBIC,
    },
}
_IMAGENET = {
    "image_size": 224,
    "preprocessing": {
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop_ratio": 0.9,
        **_BICUBIC,
    },
}
# Registered name -> notation, blocks, kernel size and number of convolutions, positions, data.
_CCT_VARIANTS = {
    "cct_2_3x2": ("CCT-2/3x2", 2, 3, 2, "learned", _CIFAR10),
    "cct_4_3x2": ("CCT-4/3x2", 4, 3, 2, "learned", _CIFAR10),
    "cct_6_3x1": ("CCT-6/3x1", 6, 3, 1, "learned", _CIFAR10),
    "cct_6_3x2": ("CCT-6/3x2", 6, 3, 2, "learned", _CIFAR10),
    "cct_7_3x1": ("CCT-7/3x1", 7, 3, 1, "learned", _CIFAR10),
    "cct_7_3x1_sine": ("CCT-7/3x1-sine", 7, 3, 1, "sincos1d", _CIFAR10),
    "cct_7_3x2": ("CCT-7/3x2", 7, 3, 2, "learned", _CIFAR10),
    "cct_7_7x2": ("CCT-7/7x2", 7, 7, 2, "learned", _FLOWERS102),
    "cct_7_7x2_sine": ("CCT-7/7x2-sine", 7, 7, 2, "sincos1d", _FLOWERS102),
    "cct_14_7x2": ("CCT-14/7x2", 14, 7, 2, "learned", _IMAGENET),
}


@keras.saving.register_keras_serializable(package="vit_tf")
class CompactTransformer(ViT):
    """CVT, with `pool="token"` ViT-Lite; images to [batch, num_classes] logits.

    A ViT of `layers.CompactEncoderBlock`s, most often with sequence pooling.

    Args:
        pool: "sequence" (a mean of tokens with learned weights, see `layers.SequencePooling`),
            "token" (a class token is added and read) or "gap" (mean over patches).
        position_embedding: "learned", "sincos1d" (fixed, along the sequence) or "none". Tables of
            other grids are resized bilinearly, as in the reference.
        position_stddev: Standard deviation of an initial learned table.
        attention_dropout: Rate on attention weights.
        stochastic_depth: Rate of dropping a residual branch, that of the last block.
        norm_epsilon: Epsilon of every LayerNorm.
        activation: "gelu" (erf), ...
        initialization: How weights start, see `layers.initialization`.
        **kwargs: Arguments of `ViT`.

    Raises:
        ValueError: As `ViT`.
    """

    unused_keywords = (
        "representation_size",
        "position_includes_class_token",
        "layer_scale_init",
        "num_registers",
    )
    pools = ("sequence", "token", "gap")
    position_embeddings = ("learned", "sincos1d", "none")
    position_resize = "bilinear"

    def __init__(
        self,
        pool: str = "sequence",
        position_embedding: str = "learned",
        position_stddev: float = 0.2,
        attention_dropout: float = 0.1,
        stochastic_depth: float = 0.1,
        norm_epsilon: float = 1e-5,
        activation: str = "gelu",
        initialization: str = "compact_transformers",
        **kwargs,
    ):
        super().__init__(
            pool=pool,
            position_embedding=position_embedding,
            position_stddev=position_stddev,
            attention_dropout=attention_dropout,
            stochastic_depth=stochastic_depth,
            norm_epsilon=norm_epsilon,
            activation=activation,
            initialization=initialization,
            **kwargs,
        )

    def create_encoder(self):
        """Creates what a ViT has, and the sequence pooling."""
        super().create_encoder()
        self.sequence_pooling = None
        if self.pool == "sequence":
            self.sequence_pooling = SequencePooling(
                self.initialization, dtype=self.dtype_policy, name="sequence_pooling"
            )

    def create_block(self, name, stochastic_depth):
        """Creates one block of the encoder."""
        return CompactEncoderBlock(
            self.num_heads,
            self.mlp_dim,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            stochastic_depth=stochastic_depth,
            norm_epsilon=self.norm_epsilon,
            activation=self.activation,
            initialization=self.initialization,
            dtype=self.dtype_policy,
            name=name,
        )

    def create_positions(self, policy):
        """Creates what adds positions to tokens, or None."""
        if self.position_embedding == "sincos1d":
            return SinCos1DPositionEmbedding(dtype=policy, name="positions")
        return super().create_positions(policy)

    def build(self, input_shape):
        """Creates all weights for [batch, height, width, channels]."""
        if self.sequence_pooling is not None:
            self.sequence_pooling.build((None, None, self.width))
        super().build(input_shape)

    def pool_tokens(self, tokens, intermediates):
        """Makes the head's input, [batch, width]."""
        if self.sequence_pooling is None:
            return super().pool_tokens(tokens, intermediates)
        return self.sequence_pooling(tokens, intermediates=intermediates)

    @property
    def intermediate_names(self):
        """Names of the tensors that `extract_features` can return, in the order of computation."""
        names = super().intermediate_names
        if self.sequence_pooling is not None:
            names.insert(names.index("head_input"), "pool_weights")
        return names


@keras.saving.register_keras_serializable(package="vit_tf")
class CCT(CompactTransformer):
    """Compact Convolutional Transformer: its tokens come out of convolutions and max-pooling.

    Any `image_size` will do; see `layers.ConvTokenizer` for the grid that it gives.

    Args:
        tokenizer_layers: Number of convolutions, each with ReLU and max-pooling behind it.
        tokenizer_kernel_size: Side of their kernels in pixels.
        tokenizer_stride: Their stride; by default tokenizer_kernel_size // 2 - 1, 1 at least.
        tokenizer_padding: Pixels around their input; by default tokenizer_kernel_size // 2, 1 at
            least.
        tokenizer_width: Output channels of all but the last, which has `width`.
        **kwargs: Arguments of `CompactTransformer`; no `patch_size`.

    Raises:
        ValueError: As `ViT`, or: the image is smaller than a kernel, or one of these numbers cannot
            be.
    """

    unused_keywords = (*CompactTransformer.unused_keywords, "patch_size")

    def __init__(
        self,
        tokenizer_layers: int = 1,
        tokenizer_kernel_size: int = 3,
        tokenizer_stride: int | None = None,
        tokenizer_padding: int | None = None,
        tokenizer_width: int = 64,
        **kwargs,
    ):
        self.tokenizer_layers = tokenizer_layers
        self.tokenizer_kernel_size = tokenizer_kernel_size
        self.tokenizer_stride = tokenizer_stride
        self.tokenizer_padding = tokenizer_padding
        self.tokenizer_width = tokenizer_width
        for parameter in ("tokenizer_layers", "tokenizer_kernel_size", "tokenizer_width"):
            check_count(parameter, getattr(self, parameter))
        if tokenizer_stride is not None:
            check_count("tokenizer_stride", tokenizer_stride)
        if tokenizer_padding is not None:
            check_count("tokenizer_padding", tokenizer_padding, minimum=0)
        stride = total_stride(tokenizer_layers, tokenizer_kernel_size, tokenizer_stride)
        super().__init__(patch_size=stride, **kwargs)

    def create_stem(self):
        """Creates the convolutions."""
        self.tokenizer = ConvTokenizer(
            (self.tokenizer_width,) * (self.tokenizer_layers - 1) + (self.width,),
            self.tokenizer_kernel_size,
            self.tokenizer_stride,
            self.tokenizer_padding,
            self.initialization,
            dtype=self.dtype_policy,
            name="tokenizer",
        )
        return self.tokenizer.compute_output_shape(self.input_shape)[1:3]

    def build_stem(self, input_shape):
        """Creates the weights of the convolutions."""
        self.tokenizer.build(input_shape)

    def embed(self, images, training, intermediates):
        """Runs the convolutions: [batch, rows, columns, width]."""
        return self.tokenizer(images, intermediates=intermediates.scope("tokenizer"))

    @property
    def intermediate_names(self):
        """Names of the tensors that `extract_features` can return, in the order of computation."""
        names = [f"tokenizer/{name}" for name in self.tokenizer.intermediate_names]
        return names + super().intermediate_names


def _config(depth, data):
    width, heads, mlp_ratio = _SIZES[depth]
    sizes = {"width": width, "num_heads": heads, "mlp_dim": mlp_ratio * width}
    return {"depth": depth, **sizes, **data}


register_family("cct", CCT)
register_family("compact_vit", CompactTransformer)
register_family("vit_lite", CompactTransformer, {"pool": "token"})
for _name, (_notation, _depth, _kernel, _layers, _positions, _data) in _CCT_VARIANTS.items():
    _tokenizer = {"tokenizer_layers": _layers, "tokenizer_kernel_size": _kernel}
    _cct = _config(_depth, _data) | _tokenizer | {"position_embedding": _positions}
    register(_name, CCT, _cct, _notation)
for _depth in (2, 4, 6, 7):
    _cvt = _config(_depth, _CIFAR10) | {"patch_size": 4}
    _lite = _cvt | {"pool": "token"}
    register(f"cvt_{_depth}_4", CompactTransformer, _cvt, f"CVT-{_depth}/4")
    register(f"vit_lite_{_depth}_4", CompactTransformer, _lite, f"ViT-Lite-{_depth}/4")
