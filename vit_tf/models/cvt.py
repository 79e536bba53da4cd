"""CvT, the Convolutional vision Transformer (Wu et al. 2021, "CvT: Introducing Convolutions ...").

Not the CVT of Compact Transformers, whose family is "compact_vit". Sizes are those of the paper's
table 1; numbers follow microsoft/CvT.
"""

from collections.abc import Iterator, Sequence

import keras
from keras import ops

from vit_tf.layers import (
    NOWHERE,
    ClassToken,
    ConvEmbedding,
    ConvProjectionBlock,
    Intermediates,
    LayerNorm,
    get_initializer,
    linear_rates,
)
from vit_tf.layers.attention import check_heads
from vit_tf.models.arguments import check_choice, check_count, per_stage
from vit_tf.models.base import ImageModel
from vit_tf.models.registry import register, register_family

_IMAGENET = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "interpolation": "bicubic",
    "antialias": True,
}
_DEFAULTS = {"preprocessing": {**_IMAGENET, "crop_ratio": 0.875}}
# The reference evaluates at 384 pixels without a central crop.
_AT_384 = {"image_size": 384, "preprocessing": _IMAGENET}
# Name -> widths, depths, heads, changes; the number is that of all blocks.
_VARIANTS = {
    "13": ((64, 192, 384), (1, 2, 10), (1, 3, 6), {}),
    "21": ((64, 192, 384), (1, 4, 16), (1, 3, 6), {}),
    "W24": ((192, 768, 1024), (2, 2, 20), (3, 12, 16), _AT_384),
}
_POOLS = ("token", "gap")
_MLP_RATIO = 4
_INITIALIZATION = "deit"


@keras.saving.register_keras_serializable(package="vit_tf")
class CvT(ImageModel):
    """CvT; [batch, height, width, channels] images to [batch, num_classes] logits.

    Each stage makes a smaller and wider grid by a convolution with LayerNorm, and runs blocks over
    it, the queries, keys and values of which come out of depth-wise convolutions with batch norm.
    Only the last stage has a class token. Positions are embedded nowhere: weights fit every
    `image_size`. In training, batch norms take the batch's statistics.

    Where an argument is for each stage, one value is for all of them.

    Args:
        width: Size of a token in each stage; as many as there are stages.
        depth: Number of blocks of each stage.
        num_heads: Attention heads of each stage; must divide the stage's width. The products are
            scaled by width ** -0.5, not by that of a head, as in the reference.
        mlp_dim: Hidden size of each stage's MLPs; four times the width by default.
        image_size: Side of the input in pixels, or (height, width); any that leaves a position.
        patch_size: Side of each stage's embedding kernel; 7, 3, 3, ... by default.
        patch_stride: Its stride; 4, 2, 2, ... by default.
        patch_padding: Zeros on each side of its input; 2, 1, 1, ... by default.
        projection_kernel: Side of each stage's depth-wise kernels, an odd number.
        key_value_stride: Stride of the projections of each stage's keys and values.
        pool: "token" (a class token is added in the last stage, and read) or "gap" (mean over the
            last stage's tokens).
        dropout: Rate after the embeddings, after attention and inside MLPs.
        attention_dropout: Rate on attention weights.
        stochastic_depth: Rate of the last block; it grows linearly from 0 over the last stage. The
            other stages drop nothing.
        norm_epsilon: Epsilon of every LayerNorm.
        activation: "quick_gelu" (x * sigmoid(1.702 x), as in the reference), "gelu" (erf), ...
        name: Name of the Keras model, with which the paths of all weights begin.
        **kwargs: Arguments of `ImageModel`: `num_classes`, `channels`, `preprocessing`, ...

    Attributes:
        grid_sizes: (rows, columns) of each stage.
        num_prefix_tokens: Tokens before those of the grid, in the last stage: the class token.

    Raises:
        ValueError: An argument has not one value for each stage or cannot be, heads do not divide
            a width, or the image is too small.
    """

    def __init__(
        self,
        width: Sequence[int],
        depth: Sequence[int] | int,
        num_heads: Sequence[int] | int,
        mlp_dim: Sequence[int] | int | None = None,
        image_size: int | tuple[int, int] = 224,
        patch_size: Sequence[int] | int | None = None,
        patch_stride: Sequence[int] | int | None = None,
        patch_padding: Sequence[int] | int | None = None,
        projection_kernel: Sequence[int] | int = 3,
        key_value_stride: Sequence[int] | int = 2,
        pool: str = "token",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        norm_epsilon: float = 1e-5,
        activation: str = "quick_gelu",
        name: str = "cvt",
        **kwargs,
    ):
        super().__init__(image_size=image_size, name=name, **kwargs)
        check_choice("pool", pool, _POOLS)
        stages = len(width)
        check_count("The number of stages", stages)
        others = stages - 1
        self.width = per_stage("width", width, stages)
        self.depth = per_stage("depth", depth, stages)
        self.num_heads = per_stage("num_heads", num_heads, stages)
        if mlp_dim is None:
            mlp_dim = [_MLP_RATIO * size for size in self.width]
        self.mlp_dim = per_stage("mlp_dim", mlp_dim, stages)
        self.patch_size = per_stage("patch_size", patch_size or (7, *[3] * others), stages)
        self.patch_stride = per_stage("patch_stride", patch_stride or (4, *[2] * others), stages)
        if patch_padding is None:
            patch_padding = (2, *[1] * others)
        self.patch_padding = per_stage("patch_padding", patch_padding, stages, minimum=0)
        self.projection_kernel = per_stage("projection_kernel", projection_kernel, stages)
        self.key_value_stride = per_stage("key_value_stride", key_value_stride, stages)
        self.pool = pool
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.stochastic_depth = stochastic_depth
        self.norm_epsilon = norm_epsilon
        self.activation = activation
        for heads, size in zip(self.num_heads, self.width, strict=True):
            check_heads(heads, size)
        self.num_prefix_tokens = int(pool == "token")
        self._create_layers(self.dtype_policy)
        self.create_heads()
        self.build(self.input_shape)

    def _create_layers(self, policy):
        windows = (self.patch_size, self.patch_stride, self.patch_padding)
        self.embeddings = [
            ConvEmbedding(
                width, *window, norm_epsilon=self.norm_epsilon, dtype=policy, name="embedding"
            )
            for width, *window in zip(self.width, *windows, strict=True)
        ]
        self.grid_sizes = self._find_grid_sizes()
        self.class_token = None
        if self.pool == "token":
            self.class_token = ClassToken(_INITIALIZATION, dtype=policy, name="class_token")
        self.token_dropout = keras.layers.Dropout(self.dropout, dtype=policy, name="dropout")
        last = len(self.width) - 1
        self.blocks = [  # of all stages
            ConvProjectionBlock(
                self.num_heads[stage],
                self.mlp_dim[stage],
                self.grid_sizes[stage],
                self.projection_kernel[stage],
                self.key_value_stride[stage],
                dropout=self.dropout,
                attention_dropout=self.attention_dropout,
                stochastic_depth=rate,
                norm_epsilon=self.norm_epsilon,
                activation=self.activation,
                initialization=_INITIALIZATION,
                dtype=policy,
                name=_block_name(index),
            )
            for stage, depth in enumerate(self.depth)
            for index, rate in enumerate(
                linear_rates(self.stochastic_depth if stage == last else 0.0, depth)
            )
        ]
        self.encoder_norm = LayerNorm(epsilon=self.norm_epsilon, dtype=policy, name="encoder_norm")

    def _find_grid_sizes(self):
        shape, sizes = self.input_shape, []
        for embedding in self.embeddings:
            shape = embedding.compute_output_shape(shape)
            sizes.append(shape[1:3])
        if min(min(size) for size in sizes) < 1:
            raise ValueError(
                f"image_size={self.image_size} is too small: the stages' grids would be "
                f"{', '.join(f'{rows} x {columns}' for rows, columns in sizes)}."
            )
        return tuple(sizes)

    def _stages(self) -> Iterator[tuple[str, ConvEmbedding, Sequence[ConvProjectionBlock]]]:
        """Name, embedding and blocks of each stage."""
        first = 0
        for stage, (embedding, depth) in enumerate(zip(self.embeddings, self.depth, strict=True)):
            yield _stage_name(stage), embedding, self.blocks[first : first + depth]
            first += depth

    def holds_prefix_tokens(self, name):
        """See `ImageModel.holds_prefix_tokens`."""
        after_attention = ("attn", "after_attn", "mlp", "out")
        blocks = f"{_stage_name(len(self.width) - 1)}/block"
        return name.startswith(blocks) and name.rpartition("/")[2] in after_attention

    @property
    def heads(self):
        """See `ImageModel.heads`."""
        return {"head": self.width[-1]}

    @property
    def head_kernel_initializer(self):
        """See `ImageModel.head_kernel_initializer`."""
        return get_initializer(_INITIALIZATION, "head_kernel")

    def build(self, input_shape):
        """Creates all weights for [batch, height, width, channels]."""
        shape, last = input_shape, self.embeddings[-1]
        for name, embedding, blocks in self._stages():
            with keras.name_scope(name):
                embedding.build(shape)
                shape = batch, rows, columns, width = embedding.compute_output_shape(shape)
                tokens = rows * columns
                if embedding is last and self.class_token is not None:
                    self.class_token.build((batch, tokens, width))
                    tokens += 1
                for block in blocks:
                    block.build((batch, tokens, width))
        for layer in (self.token_dropout, self.encoder_norm):
            layer.build((batch, tokens, width))
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
        grid, last = images, self.embeddings[-1]
        for name, embedding, blocks in self._stages():
            scope = intermediates.scope(name)
            grid = embedding(grid)
            scope.record("embed", grid)
            batch, rows, columns, width = ops.shape(grid)
            tokens = ops.reshape(grid, (batch, rows * columns, width))
            prefix = self.num_prefix_tokens if embedding is last else 0
            if prefix:
                tokens = self.class_token(tokens)
            tokens = self.token_dropout(tokens, training=training)
            for block in blocks:
                inner = scope.scope(block.name)
                tokens = block(tokens, training=training, intermediates=inner)
            grid = ops.reshape(tokens[:, prefix:], (batch, rows, columns, width))
            scope.record("out", grid)
        pooled = self._pool(tokens)
        intermediates.record("head_input", pooled)
        intermediates.record("pre_logits", pooled)
        if self.head is None:
            return pooled
        logits = self.head(pooled)
        intermediates.record("logits", logits)
        return logits

    def _pool(self, tokens):
        """[batch, width] of the last stage's tokens."""
        if self.pool == "token":
            return self.encoder_norm(tokens[:, 0])
        return ops.mean(self.encoder_norm(tokens), axis=1)

    @property
    def intermediate_names(self) -> list[str]:
        """Names of the tensors that `extract_features` can return, in the order of computation."""
        names = []
        for stage, depth in enumerate(self.depth):
            parts = ConvProjectionBlock.intermediate_names
            blocks = [f"{_block_name(i)}/{part}" for i in range(depth) for part in parts]
            names += [f"{_stage_name(stage)}/{name}" for name in ("embed", *blocks, "out")]
        names += ["head_input", "pre_logits"]
        return names + (["logits"] if self.head is not None else [])

    def compute_output_shape(self, input_shape):
        """Returns the shape of the logits, or of what would enter the head."""
        return (input_shape[0], self.num_classes or self.width[-1])


def _stage_name(index):
    return f"stage{index}"


def _block_name(index):
    return f"block{index:02d}"


register_family("cvt", CvT, _DEFAULTS)
for _name, (_width, _depth, _heads, _changes) in _VARIANTS.items():
    _config = {"width": _width, "depth": _depth, "num_heads": _heads, **_DEFAULTS, **_changes}
    register(f"cvt_{_name.lower()}", CvT, _config, f"CvT-{_name}")
