"""CMT (Guo et al. 2021, "CMT: Convolutional Neural Networks Meet Vision Transformers").

Sizes are those of the paper's table 1; numbers follow ggjy/CMT.pytorch, whose CMT-S is a little
larger than the paper's.
"""

from collections.abc import Iterator, Sequence

import keras
from keras import ops

from vit_tf.layers import (
    NOWHERE,
    CMTBlock,
    CMTStem,
    ConvEmbedding,
    Intermediates,
    PairPositions,
    get_initializer,
    linear_rates,
)
from vit_tf.layers.attention import check_heads
from vit_tf.layers.batch_norm import batch_norm
from vit_tf.layers.fan_out_conv import fan_out_conv
from vit_tf.models.arguments import check_count, per_stage
from vit_tf.models.base import ImageModel
from vit_tf.models.registry import register, register_family

# Size -> width of the first stage, depths, ratio of MLPs, width of the stem, pixels, dropout.
_VARIANTS = {
    "Ti": (46, (2, 2, 10, 2), 3.6, 16, 160, 0.1),
    "XS": (52, (3, 3, 12, 3), 3.77, 16, 192, 0.1),
    "S": (64, (3, 3, 16, 3), 4, 32, 224, 0.1),
    "B": (76, (4, 4, 20, 4), 4, 38, 256, 0.3),
}
_HEADS = (1, 2, 4, 8)
_DEFAULTS = {
    "preprocessing": {
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "crop_ratio": 0.875,
        "interpolation": "bicubic",
        "antialias": True,
    }
}
_MLP_RATIO = 4
_EMBEDDING_EPSILON = 1e-5  # torch's default; that of the blocks' LayerNorms is 1e-6
_INITIALIZATION = "deit"


@keras.saving.register_keras_serializable(package="vit_tf")
class CMT(ImageModel):
    """CMT; [batch, height, width, channels] images to [batch, num_classes] logits.

    A stem of three convolutions; in each stage a 2x2 convolution with stride 2 and LayerNorm, and
    blocks of a depth-wise convolution, attention to keys of a smaller grid and an MLP with a
    depth-wise convolution inside; a 1x1 convolution with batch norm and swish, mean over positions
    and a linear head. The blocks of a stage share a learned number for each pair of a query's and a
    key's place. It binds the weights to one `image_size`; `load_checkpoint` resizes it for another.
    In training, batch norms take the batch's statistics.

    Where an argument is for each stage, one value is for all of them.

    Args:
        width: Channels of each stage; as many as there are stages.
        depth: Number of blocks of each stage.
        num_heads: Attention heads of each stage; must divide the stage's width.
        mlp_dim: Hidden channels of each stage's MLPs; four times the width by default.
        image_size: Side of the input in pixels, or (height, width); odd sides round the stem's grid
            up and the stages' down.
        stem_width: Channels of the stem.
        stem_strides: Strides of the stem's 3x3 convolutions.
        key_value_reduction: By what the sides of each stage's keys and values are smaller.
        representation_size: Channels of the 1x1 convolution before the mean.
        dropout: Rate before the head.
        attention_dropout: Rate on attention weights.
        stochastic_depth: Rate of the last block; it grows linearly from 0 at the first.
        norm_epsilon: Epsilon of the blocks' LayerNorms; that of the stages' first ones is 1e-5.
        activation: "gelu" (erf, as in the reference), "gelu_tanh", ...
        name: Name of the Keras model, with which the paths of all weights begin.
        **kwargs: Arguments of `ImageModel`: `num_classes`, `channels`, `preprocessing`, ...

    Attributes:
        grid_sizes: (rows, columns) of each stage.

    Raises:
        ValueError: An argument has not one value for each stage or cannot be, heads do not divide
            a width, or the image leaves a stage no token or no key.
    """

    def __init__(
        self,
        width: Sequence[int],
        depth: Sequence[int] | int,
        num_heads: Sequence[int] | int,
        mlp_dim: Sequence[int] | int | None = None,
        image_size: int | tuple[int, int] = 224,
        stem_width: int = 16,
        stem_strides: Sequence[int] = (2, 1, 1),
        key_value_reduction: Sequence[int] | int = (8, 4, 2, 1),
        representation_size: int = 1280,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        norm_epsilon: float = 1e-6,
        activation: str = "gelu",
        name: str = "cmt",
        **kwargs,
    ):
        super().__init__(image_size=image_size, name=name, **kwargs)
        stages = len(width)
        check_count("The number of stages", stages)
        self.width = per_stage("width", width, stages)
        self.depth = per_stage("depth", depth, stages)
        self.num_heads = per_stage("num_heads", num_heads, stages)
        if mlp_dim is None:
            mlp_dim = [_MLP_RATIO * size for size in self.width]
        self.mlp_dim = per_stage("mlp_dim", mlp_dim, stages)
        self.stem_width = stem_width
        self.stem_strides = tuple(stem_strides)
        self.key_value_reduction = per_stage("key_value_reduction", key_value_reduction, stages)
        self.representation_size = representation_size
        for parameter in ("stem_width", "representation_size"):
            check_count(parameter, getattr(self, parameter))
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.stochastic_depth = stochastic_depth
        self.norm_epsilon = norm_epsilon
        self.activation = activation
        for heads, size in zip(self.num_heads, self.width, strict=True):
            check_heads(heads, size)
        self._create_layers(self.dtype_policy)
        self.create_heads()
        self.build(self.input_shape)

    def _create_layers(self, policy):
        self.stem = CMTStem(
            self.stem_width, self.stem_strides, self.activation, dtype=policy, name="stem"
        )
        self.embeddings = [
            ConvEmbedding(
                width,
                kernel_size=2,
                strides=2,
                norm_epsilon=_EMBEDDING_EPSILON,
                kernel_initializer=fan_out_conv(width, 2).kernel_initializer,
                dtype=policy,
                name="embedding",
            )
            for width in self.width
        ]
        self.grid_sizes = self._find_grid_sizes()
        rates = iter(linear_rates(self.stochastic_depth, sum(self.depth)))
        self.blocks = [  # of all stages
            CMTBlock(
                self.num_heads[stage],
                self.mlp_dim[stage],
                self.grid_sizes[stage],
                self.key_value_reduction[stage],
                attention_dropout=self.attention_dropout,
                stochastic_depth=next(rates),
                norm_epsilon=self.norm_epsilon,
                activation=self.activation,
                dtype=policy,
                name=_block_name(index),
            )
            for stage, depth in enumerate(self.depth)
            for index in range(depth)
        ]
        self.positions = [
            PairPositions(grid, blocks[0].attention.key_grid, dtype=policy, name="positions")
            for grid, (_, _, blocks) in zip(self.grid_sizes, self._stages(), strict=True)
        ]
        self.final_conv = fan_out_conv(self.representation_size, 1, dtype=policy, name="final_conv")
        self.final_norm = batch_norm(dtype=policy, name="final_norm").follows(self.final_conv)
        self.head_dropout = keras.layers.Dropout(self.dropout, dtype=policy, name="dropout")

    def _find_grid_sizes(self):
        shape, sizes = self.stem.compute_output_shape(self.input_shape), []
        for embedding in self.embeddings:
            shape = embedding.compute_output_shape(shape)
            sizes.append(shape[1:3])
        if min(min(size) for size in sizes) < 1:
            raise ValueError(
                f"image_size={self.image_size} is too small: the stages' grids would be "
                f"{', '.join(f'{rows} x {columns}' for rows, columns in sizes)}."
            )
        return tuple(sizes)

    def _stages(self) -> Iterator[tuple[str, ConvEmbedding, Sequence[CMTBlock]]]:
        """Name, embedding and blocks of each stage."""
        first = 0
        for stage, (embedding, depth) in enumerate(zip(self.embeddings, self.depth, strict=True)):
            yield _stage_name(stage), embedding, self.blocks[first : first + depth]
            first += depth

    @property
    def heads(self):
        """See `ImageModel.heads`."""
        return {"head": self.representation_size}

    @property
    def head_kernel_initializer(self):
        """See `ImageModel.head_kernel_initializer`."""
        return get_initializer(_INITIALIZATION, "head_kernel")

    def build(self, input_shape):
        """Creates all weights for [batch, height, width, channels]."""
        self.stem.build(input_shape)
        shape = self.stem.compute_output_shape(input_shape)
        for (name, embedding, blocks), positions in zip(
            self._stages(), self.positions, strict=True
        ):
            with keras.name_scope(name):
                embedding.build(shape)
                shape = embedding.compute_output_shape(shape)
                positions.build((None, blocks[0].num_heads, None, None))
                for block in blocks:
                    block.build(shape)
        self.final_conv.build(shape)
        final = (*shape[:-1], self.representation_size)
        self.final_norm.build(final)
        self.head_dropout.build((shape[0], self.representation_size))
        self.build_heads()

    def call(self, images, training=None, intermediates: Intermediates = NOWHERE):
        """Classifies images.

        Args:
            images: Floating-point [batch, height, width, channels].
            training: Whether dropout and stochastic depth are active, and batch norms take the
                batch's statistics.
            intermediates: Collector of named tensors, see `extract_features`.

        Returns:
            Logits [batch, num_classes], or what enters the head where num_classes is 0.

        Raises:
            ValueError: The images have another shape or an integer dtype.
        """
        self.check_images(images)
        grid = self.stem(images, training=training, intermediates=intermediates.scope("stem"))
        for (name, embedding, blocks), positions in zip(
            self._stages(), self.positions, strict=True
        ):
            scope = intermediates.scope(name)
            grid = embedding(grid)
            batch, rows, columns, width = ops.shape(grid)
            scope.record("embed", ops.reshape(grid, (batch, rows * columns, width)))
            for block in blocks:
                grid = block(
                    grid,
                    positions=positions,
                    training=training,
                    intermediates=scope.scope(block.name),
                )
            scope.record("out", grid)
        grid = self.final_conv(grid)
        intermediates.record("final_conv", grid)
        grid = ops.silu(self.final_norm(grid, training=training))
        pooled = ops.mean(grid, axis=(1, 2))
        intermediates.record("head_input", pooled)
        intermediates.record("pre_logits", pooled)
        if self.head is None:
            return pooled
        logits = self.head(self.head_dropout(pooled, training=training))
        intermediates.record("logits", logits)
        return logits

    @property
    def intermediate_names(self) -> list[str]:
        """Names of the tensors that `extract_features` can return, in the order of computation."""
        names = [f"stem/{name}" for name in self.stem.intermediate_names]
        for stage, depth in enumerate(self.depth):
            parts = CMTBlock.intermediate_names
            blocks = [f"{_block_name(i)}/{part}" for i in range(depth) for part in parts]
            names += [f"{_stage_name(stage)}/{name}" for name in ("embed", *blocks, "out")]
        names += ["final_conv", "head_input", "pre_logits"]
        return names + (["logits"] if self.head is not None else [])

    def compute_output_shape(self, input_shape):
        """Returns the shape of the logits, or of what would enter the head."""
        return (input_shape[0], self.num_classes or self.representation_size)


def _stage_name(index):
    return f"stage{index}"


def _block_name(index):
    return f"block{index:02d}"


register_family("cmt", CMT, _DEFAULTS)
for _size, (_first, _depth, _ratio, _stem_width, _pixels, _dropout) in _VARIANTS.items():
    _width = tuple(_first * 2**stage for stage in range(len(_depth)))
    _config = {
        "width": _width,
        "depth": _depth,
        "num_heads": _HEADS,
        "mlp_dim": tuple(int(_ratio * size) for size in _width),
        "stem_width": _stem_width,
        "image_size": _pixels,
        "dropout": _dropout,
        **_DEFAULTS,
    }
    register(f"cmt_{_size.lower()}", CMT, _config, f"CMT-{_size}")
