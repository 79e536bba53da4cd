"""LeViT: a Vision Transformer in ConvNet's clothing for faster inference (Graham et al. 2021).

Architecture and defaults follow facebookresearch/LeViT, `levit.py`.
"""

import math
from collections.abc import Sequence

import keras
from keras import ops

from vit_tf.layers import (
    NOWHERE,
    Intermediates,
    LeViTDownSampling,
    LeViTStage,
    LeViTStem,
    NormLinear,
    get_initializer,
)
from vit_tf.models.arguments import check_count, per_stage
from vit_tf.models.base import ImageModel
from vit_tf.models.registry import register, register_family

# Name -> widths, size of a head's key, heads, depths, stochastic depth.
_VARIANTS = {
    "128S": ((128, 256, 384), 16, (4, 6, 8), (2, 3, 4), 0.0),
    "128": ((128, 256, 384), 16, (4, 8, 12), (4, 4, 4), 0.0),
    "192": ((192, 288, 384), 32, (3, 5, 6), (4, 4, 4), 0.0),
    "256": ((256, 384, 512), 32, (4, 6, 8), (4, 4, 4), 0.0),
    "384": ((384, 512, 768), 32, (6, 9, 12), (4, 4, 4), 0.1),
}
_DEFAULTS = {
    "preprocessing": {
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "interpolation": "bicubic",
        "antialias": True,
        "crop_ratio": 0.875,
    },
}
_STEM_CONVOLUTIONS = 4


@keras.saving.register_keras_serializable(package="vit_tf")
class LeViT(ImageModel):
    """LeViT; [batch, height, width, channels] images to [batch, num_classes] logits.

    A convolutional stem; stages of attention and MLPs on a grid of tokens, with attention to a
    smaller grid of wider tokens between two of them; mean over tokens; a head of batch norm and
    linear layer, and another one that learns what a teacher says. Every other linear layer and
    convolution has a batch norm behind it, which `fold_batch_norms` folds in for inference. There
    is no position embedding but the attention's biases by offset.

    A model takes the image size that it was made for; `load_checkpoint` resizes the biases of
    another one.

    Args:
        width: Size of the tokens of each stage.
        depth: Number of attention layers of each stage, each with an MLP behind it; one number
            for all stages, or one for each. So are the heads.
        num_heads: Attention heads of each stage.
        key_dim: Size of a head's query and key.
        value_dim: Size of a head's value; by default 2 * key_dim.
        mlp_ratio: Hidden size of the MLPs as a multiple of the width; 0 leaves them out.
        stem_widths: Channels of the stem's convolutions, each of stride 2, the last of them those
            of the first stage; by default an eighth, a quarter and half of these before.
        down_num_heads: Attention heads between the stages; by default as many as key_dim goes into
            the width before.
        down_value_dim: Size of a head's value there; by default 4 * key_dim.
        down_stride: By what the sides of the grid are divided there, rounding up.
        down_mlp_ratio: As `mlp_ratio`, of the MLPs there.
        distillation_head: Whether there is a second head for what a teacher says.
        image_size: Side of the input in pixels, or (height, width).
        activation: Activation of stem, attention and MLPs, see `layers.activations`.
        stochastic_depth: Rate of dropping a residual branch, the same for all.
        name: Name of the Keras model, with which the paths of all weights begin.
        **kwargs: Arguments of `ImageModel`: `num_classes`, `channels`, `preprocessing`, ...

    Attributes:
        grid_size: (rows, columns) of tokens in the first stage.

    Raises:
        ValueError: The numbers of widths, depths and heads differ, one is no positive number, or
            `stem_widths` do not end in the first width.
    """

    head_layer = NormLinear

    def __init__(
        self,
        width: Sequence[int],
        depth: int | Sequence[int],
        num_heads: int | Sequence[int],
        key_dim: int,
        value_dim: int | None = None,
        mlp_ratio: float = 2,
        stem_widths: Sequence[int] | None = None,
        down_num_heads: int | Sequence[int] | None = None,
        down_value_dim: int | None = None,
        down_stride: int = 2,
        down_mlp_ratio: float = 2,
        distillation_head: bool = True,
        image_size: int | tuple[int, int] = 224,
        activation: str = "hard_swish",
        stochastic_depth: float = 0.0,
        name: str = "levit",
        **kwargs,
    ):
        super().__init__(image_size=image_size, name=name, **kwargs)
        check_count("key_dim", key_dim)
        self.width = per_stage("width", width, len(width))
        stages = len(self.width)
        self.depth = per_stage("depth", depth, stages)
        self.num_heads = per_stage("num_heads", num_heads, stages)
        self.key_dim = key_dim
        self.value_dim = 2 * key_dim if value_dim is None else value_dim
        self.mlp_ratio = mlp_ratio
        self.stem_widths = _default_stem(self.width) if stem_widths is None else tuple(stem_widths)
        if down_num_heads is None:
            down_num_heads = [before // key_dim for before in self.width[:-1]]
        self.down_num_heads = per_stage("down_num_heads", down_num_heads, stages - 1)
        self.down_value_dim = 4 * key_dim if down_value_dim is None else down_value_dim
        self.down_stride = down_stride
        self.down_mlp_ratio = down_mlp_ratio
        self.distillation_head = distillation_head
        self.activation = activation
        self.stochastic_depth = stochastic_depth
        self._check()
        self.stem = LeViTStem(self.stem_widths, activation, dtype=self.dtype_policy, name="stem")
        self.grid_size = self.stem.compute_output_shape(self.input_shape)[1:3]
        self.stages = self._create_stages()
        self.create_heads()
        self.build(self.input_shape)

    def _check(self):
        for parameter in ("value_dim", "down_value_dim", "down_stride"):
            check_count(parameter, getattr(self, parameter))
        for channels in self.stem_widths:
            check_count("stem_widths", channels)
        if self.stem_widths[-1:] != self.width[:1]:
            raise ValueError(
                f"stem_widths={self.stem_widths} must end in {self.width[0]}, the width of the "
                "first stage."
            )

    def _create_stages(self):
        """Stages and the steps between them, in their order."""
        shared = {
            "activation": self.activation,
            "stochastic_depth": self.stochastic_depth,
            "dtype": self.dtype_policy,
        }
        grid, layers = self.grid_size, []
        for index, width in enumerate(self.width):
            if index:
                down = LeViTDownSampling(
                    width,
                    self.down_num_heads[index - 1],
                    self.key_dim,
                    self.down_value_dim,
                    int(width * self.down_mlp_ratio),
                    grid,
                    self.down_stride,
                    name=f"down{index - 1}",
                    **shared,
                )
                layers.append(down)
                grid = down.new_grid_size
            stage = LeViTStage(
                self.depth[index],
                self.num_heads[index],
                self.key_dim,
                self.value_dim,
                int(width * self.mlp_ratio),
                grid,
                name=f"stage{index}",
                **shared,
            )
            layers.append(stage)
        return layers

    @property
    def heads(self):
        """See `ImageModel.heads`."""
        names = ("head", "head_dist") if self.distillation_head else ("head",)
        return dict.fromkeys(names, self.width[-1])

    @property
    def head_kernel_initializer(self):
        """See `ImageModel.head_kernel_initializer`."""
        return get_initializer("deit", "head_kernel")

    def build(self, input_shape):
        """Creates all weights for [batch, height, width, channels]."""
        self.stem.build(input_shape)
        tokens = (None, math.prod(self.grid_size), self.width[0])
        for stage in self.stages:
            stage.build(tokens)
            tokens = stage.compute_output_shape(tokens)
        self.build_heads()

    def call(self, images, training=None, intermediates: Intermediates = NOWHERE):
        """Classifies images.

        Args:
            images: Floating-point [batch, height, width, channels].
            training: Whether batch norms use the batch's statistics, and stochastic depth is
                active.
            intermediates: Collector of named tensors, see `extract_features`.

        Returns:
            Logits [batch, num_classes], with two heads their mean; in training mode these are the
            pair (logits of the class head, logits of the distillation head). What enters the heads,
            [batch, width of the last stage], where num_classes is 0.

        Raises:
            ValueError: The images have another shape or an integer dtype.
        """
        self.check_images(images)
        grid = self.stem(images, training=training)
        intermediates.record("stem", grid)
        tokens = ops.reshape(grid, (-1, math.prod(self.grid_size), self.width[0]))
        intermediates.record("tokens", tokens)
        for stage in self.stages:
            scope = intermediates.scope(stage.name)
            tokens = stage(tokens, training=training, intermediates=scope)
        intermediates.record("encoded", tokens)
        return self._classify(ops.mean(tokens, axis=1), training, intermediates)

    def _classify(self, pooled, training, intermediates):
        intermediates.record("head_input", pooled)
        intermediates.record("pre_logits", pooled)
        if self.head is None:
            return pooled
        logits = self.head(pooled, training=training)
        if not self.distillation_head:
            intermediates.record("logits", logits)
            return logits
        logits_dist = self.head_dist(pooled, training=training)
        mean = (logits + logits_dist) / 2
        intermediates.record("logits_class", logits)
        intermediates.record("logits_dist", logits_dist)
        intermediates.record("logits", mean)
        return (logits, logits_dist) if training else mean

    @property
    def intermediate_names(self) -> list[str]:
        """Names of the tensors that `extract_features` can return, in the order of computation."""
        names = ["stem", "tokens"]
        names += [f"{s.name}/{part}" for s in self.stages for part in s.intermediate_names]
        names += ["encoded", "head_input", "pre_logits"]
        if not self.num_classes:
            return names
        return (
            names + (["logits_class", "logits_dist"] if self.distillation_head else []) + ["logits"]
        )

    def compute_output_shape(self, input_shape):
        """Returns the shape of the logits, or of what would enter the heads."""
        return (input_shape[0], self.num_classes or self.width[-1])


def _default_stem(widths):
    """Channels of a stem that doubles them at every convolution, up to the first stage's width."""
    return tuple(widths[0] // 2**halvings for halvings in reversed(range(_STEM_CONVOLUTIONS)))


register_family("levit", LeViT, _DEFAULTS)
for _name, (_width, _key_dim, _num_heads, _depth, _stochastic_depth) in _VARIANTS.items():
    _config = {
        "width": _width,
        "depth": _depth,
        "num_heads": _num_heads,
        "key_dim": _key_dim,
        "stochastic_depth": _stochastic_depth,
        **_DEFAULTS,
    }
    register(f"levit_{_name.lower()}", LeViT, _config, f"LeViT-{_name}")
