"""MLP-Mixer (Tolstikhin et al. 2021, "MLP-Mixer: An all-MLP Architecture for Vision").

Sizes are those of the paper's table 1; numbers, initialisation and defaults follow
google-research/vision_transformer, `models_mixer.py`.
"""

import math

import keras
from keras import ops

from vit_tf.layers import (
    NOWHERE,
    Intermediates,
    LayerNorm,
    MixerBlock,
    PatchEmbedding,
    linear_rates,
)
from vit_tf.models.arguments import as_pair, grid_size
from vit_tf.models.base import ImageModel
from vit_tf.models.registry import register, register_family

# Size -> width, depth, MLP width over tokens, MLP width over channels.
_SIZES = {
    "S": (512, 8, 256, 2048),
    "B": (768, 12, 384, 3072),
    "L": (1024, 24, 512, 4096),
    "H": (1280, 32, 640, 5120),
}
_VARIANTS = [("S", 32), ("S", 16), ("B", 32), ("B", 16), ("L", 32), ("L", 16), ("H", 14)]


@keras.saving.register_keras_serializable(package="vit_tf")
class Mixer(ImageModel):
    """MLP-Mixer; [batch, height, width, channels] images to [batch, num_classes] logits.

    Patch embedding, blocks of an MLP over tokens and one over channels, final LayerNorm, mean over
    tokens and a linear head that starts at zero. The MLPs over tokens bind the weights to one
    `image_size`; there is no position embedding.

    Stochastic depth divides kept branches by 1 - rate, as everywhere in this package, so that their
    expectation is that of inference. big_vision's Mixer does not; to reproduce a run of it that
    used stochastic depth, mind that its branches were smaller in training than in inference.

    Args:
        patch_size: Side of a patch in pixels, or (height, width).
        width: Size of a token.
        depth: Number of blocks.
        tokens_mlp_dim: Hidden size of the MLPs over tokens.
        channels_mlp_dim: Hidden size of the MLPs over channels.
        image_size: Side of the input in pixels, or (height, width); the patch must divide it.
        dropout: Rate inside the MLPs.
        stochastic_depth: Rate of the last block; it grows linearly from 0 at the first.
        norm_epsilon: Epsilon of every LayerNorm.
        activation: "gelu_tanh" (as in the reference implementation), "gelu" (erf), ...
        name: Name of the Keras model, with which the paths of all weights begin.
        **kwargs: Arguments of `ImageModel`: `num_classes`, `channels`, `preprocessing`, ...

    Attributes:
        grid_size: (rows, columns) of patches.

    Raises:
        ValueError: The patch does not divide the image, or a size or name cannot be.
    """

    def __init__(
        self,
        patch_size: int | tuple[int, int],
        width: int,
        depth: int,
        tokens_mlp_dim: int,
        channels_mlp_dim: int,
        image_size: int | tuple[int, int] = 224,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        norm_epsilon: float = 1e-6,
        activation: str = "gelu_tanh",
        name: str = "mixer",
        **kwargs,
    ):
        super().__init__(image_size=image_size, name=name, **kwargs)
        self.patch_size = as_pair("patch_size", patch_size)
        self.width = width
        self.depth = depth
        self.tokens_mlp_dim = tokens_mlp_dim
        self.channels_mlp_dim = channels_mlp_dim
        self.dropout = dropout
        self.stochastic_depth = stochastic_depth
        self.norm_epsilon = norm_epsilon
        self.activation = activation
        self.grid_size = grid_size(self.image_size, self.patch_size)
        self._create_layers(self.dtype_policy)
        self.create_heads()
        self.build(self.input_shape)

    def _create_layers(self, policy):
        self.patch_embedding = PatchEmbedding(
            self.width, self.patch_size, dtype=policy, name="patch_embedding"
        )
        self.blocks = [
            MixerBlock(
                self.tokens_mlp_dim,
                self.channels_mlp_dim,
                dropout=self.dropout,
                stochastic_depth=rate,
                norm_epsilon=self.norm_epsilon,
                activation=self.activation,
                dtype=policy,
                name=_block_name(index),
            )
            for index, rate in enumerate(linear_rates(self.stochastic_depth, self.depth))
        ]
        self.encoder_norm = LayerNorm(epsilon=self.norm_epsilon, dtype=policy, name="encoder_norm")

    @property
    def heads(self):
        """See `ImageModel.heads`."""
        return {"head": self.width}

    def build(self, input_shape):
        """Creates all weights for [batch, height, width, channels]."""
        self.patch_embedding.build(input_shape)
        tokens = (None, math.prod(self.grid_size), self.width)
        for layer in (*self.blocks, self.encoder_norm):
            layer.build(tokens)
        self.build_heads()

    def call(self, images, training=None, intermediates: Intermediates = NOWHERE):
        """Classifies images.

        Args:
            images: Floating-point [batch, height, width, channels].
            training: Whether dropout and stochastic depth are active.
            intermediates: Collector of named tensors, see `extract_features`.

        Returns:
            Logits [batch, num_classes], or what enters the head where num_classes is 0.

        Raises:
            ValueError: The images have another shape or an integer dtype.
        """
        self.check_images(images)
        grid = self.patch_embedding(images)
        intermediates.record("stem", grid)
        tokens = ops.reshape(grid, (ops.shape(grid)[0], math.prod(self.grid_size), self.width))
        intermediates.record("tokens", tokens)
        for index, block in enumerate(self.blocks):
            scope = intermediates.scope(_block_name(index))
            tokens = block(tokens, training=training, intermediates=scope)
        tokens = self.encoder_norm(tokens)
        intermediates.record("encoded", tokens)
        pre_logits = ops.mean(tokens, axis=1)
        intermediates.record("pre_logits", pre_logits)
        if self.head is None:
            return pre_logits
        logits = self.head(pre_logits)
        intermediates.record("logits", logits)
        return logits

    @property
    def intermediate_names(self) -> list[str]:
        """Names of the tensors that `extract_features` can return, in the order of computation."""
        parts = ("token_mixing", "after_token_mixing", "channel_mixing", "out")
        names = ["stem", "tokens"]
        names += [f"{_block_name(i)}/{part}" for i in range(self.depth) for part in parts]
        names += ["encoded", "pre_logits"]
        return names + (["logits"] if self.num_classes else [])

    def compute_output_shape(self, input_shape):
        """Returns the shape of the logits, or of what would enter the head."""
        return (input_shape[0], self.num_classes or self.width)


def _block_name(index):
    return f"block{index:02d}"


register_family("mixer", Mixer)
for _size, _patch in _VARIANTS:
    _width, _depth, _tokens_mlp_dim, _channels_mlp_dim = _SIZES[_size]
    _config = {
        "patch_size": _patch,
        "width": _width,
        "depth": _depth,
        "tokens_mlp_dim": _tokens_mlp_dim,
        "channels_mlp_dim": _channels_mlp_dim,
    }
    register(f"mixer_{_size.lower()}{_patch}", Mixer, _config, f"Mixer-{_size}/{_patch}")
