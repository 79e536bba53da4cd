"""Vision Transformer (Dosovitskiy et al. 2020; Zhai et al. 2021, "Scaling Vision Transformers").

The sizes and their defaults follow google-research/vision_transformer (class token or mean) and
google-research/big_vision (attention pooling).
"""

import math

import keras
from keras import ops

from vit_tf.layers import (
    NOWHERE,
    ClassToken,
    EncoderBlock,
    Intermediates,
    LayerNorm,
    LearnedPositionEmbedding,
    MAPHead,
    PatchEmbedding,
    RegisterTokens,
    SinCos2DPositionEmbedding,
    constant_rates,
    get_initializer,
    linear_rates,
)
from vit_tf.layers.attention import check_heads
from vit_tf.models.arguments import as_pair, check_choice, check_count, grid_size
from vit_tf.models.base import ImageModel
from vit_tf.models.registry import register, register_family

# Letter of the size -> width, depth, MLP width, heads.
SIZES = {
    "mu": (32, 1, 128, 2),
    "xs": (256, 6, 1024, 8),  # lower-case s in Scaling ViT, table 2
    "ti": (192, 12, 768, 3),
    "s": (384, 12, 1536, 6),
    "m": (512, 12, 2048, 8),
    "b": (768, 12, 3072, 12),
    "l": (1024, 24, 4096, 16),
    "so400m": (1152, 27, 4304, 16),
    "h": (1280, 32, 5120, 16),
    "g": (1408, 40, 6144, 16),
    "gigantic": (1664, 48, 8192, 16),  # upper-case G in Scaling ViT
    "e": (1792, 56, 15360, 16),
}

# Registered name -> size, patch, the paper's notation, what differs from the class's defaults.
# A `_gap` or `_map` in the name tells the pooling where the size also exists with a class token.
_VARIANTS = {
    "vit_ti16": ("ti", 16, "ViT-Ti/16", {}),
    "vit_s32": ("s", 32, "ViT-S/32", {}),
    "vit_s16": ("s", 16, "ViT-S/16", {}),
    "vit_b32": ("b", 32, "ViT-B/32", {}),
    "vit_b16": ("b", 16, "ViT-B/16", {}),
    "vit_b8": ("b", 8, "ViT-B/8", {}),
    "vit_l32": ("l", 32, "ViT-L/32", {}),
    "vit_l16": ("l", 16, "ViT-L/16", {"dropout": 0.1}),
    "vit_h14": ("h", 14, "ViT-H/14", {"dropout": 0.1}),
    "vit_s32_gap": ("s", 32, "ViT-S/32-gap", {"pool": "gap"}),
    "vit_s16_gap": ("s", 16, "ViT-S/16-gap", {"pool": "gap"}),
    "vit_b32_gap": ("b", 32, "ViT-B/32-gap", {"pool": "gap"}),
    "vit_b16_gap": ("b", 16, "ViT-B/16-gap", {"pool": "gap"}),
    "vit_ti16_map": ("ti", 16, "ViT-Ti/16-map", {"pool": "map"}),
    "vit_s32_map": ("s", 32, "ViT-S/32-map", {"pool": "map"}),
    "vit_s16_map": ("s", 16, "ViT-S/16-map", {"pool": "map"}),
    "vit_b32_map": ("b", 32, "ViT-B/32-map", {"pool": "map"}),
    "vit_b28_map": ("b", 28, "ViT-B/28", {"pool": "map"}),
    "vit_b16_map": ("b", 16, "ViT-B/16-map", {"pool": "map"}),
    "vit_b14_map": ("b", 14, "ViT-B/14", {"pool": "map"}),
    "vit_l16_map": ("l", 16, "ViT-L/16-map", {"pool": "map"}),
    "vit_l14_map": ("l", 14, "ViT-L/14", {"pool": "map"}),
    "vit_h14_map": ("h", 14, "ViT-H/14-map", {"pool": "map"}),
    "vit_mu16": ("mu", 16, "ViT-mu/16", {"pool": "map"}),
    "vit_xs28": ("xs", 28, "ViT-s/28", {"pool": "map"}),
    "vit_xs16": ("xs", 16, "ViT-s/16", {"pool": "map"}),
    "vit_m16": ("m", 16, "ViT-M/16", {"pool": "map"}),
    "vit_so400m14": ("so400m", 14, "ViT-So400m/14", {"pool": "map"}),
    "vit_g14": ("g", 14, "ViT-g/14", {"pool": "map"}),
    "vit_gigantic14": ("gigantic", 14, "ViT-G/14", {"pool": "map"}),
    "vit_e14": ("e", 14, "ViT-e/14", {"pool": "map"}),
}

_STOCHASTIC_DEPTH_RATES = {"linear": linear_rates, "constant": constant_rates}


@keras.saving.register_keras_serializable(package="vit_tf")
class ViT(ImageModel):
    """Vision Transformer; [batch, height, width, channels] images to [batch, num_classes] logits.

    Patch embedding, class token, position embedding, pre-norm blocks, final LayerNorm, pooling, an
    optional representation layer and a linear head that starts at zero. The head computes in
    float32 whatever the policy, so logits are float32 under mixed precision.

    Args:
        patch_size: Side of a patch in pixels, or (height, width).
        width: Size of a token.
        depth: Number of encoder blocks.
        num_heads: Attention heads of a block; must divide `width`.
        mlp_dim: Hidden size of a block's MLP.
        image_size: Side of the input in pixels, or (height, width); the patch must divide it.
        pool: "token" (a class token is added and read), "gap" (mean over patches), "map"
            (attention pooling, see `layers.MAPHead`) or "none" (logits for every patch token).
        representation_size: Size of a dense layer with tanh before the head; None for none.
        position_embedding: "learned", "sincos2d" (fixed, not a weight) or "none".
        position_includes_class_token: True adds positions after the class token is prepended, so
            that a learned table has a row for it (vision_transformer); False adds them before, to
            patches only (big_vision). Without a class token both are the same.
        position_stddev: Standard deviation of an initial learned table; 0.02 in
            vision_transformer, 1 / sqrt(width) in big_vision.
        dropout: Rate after the position embedding, after attention and inside MLPs.
        attention_dropout: Rate on attention weights.
        stochastic_depth: Rate of dropping a residual branch, that of the last block.
        stochastic_depth_schedule: "linear" (the rate grows from 0 at the first block) or
            "constant" (the same in all blocks).
        layer_scale_init: Initial LayerScale; None for no LayerScale.
        num_registers: Number of register tokens behind the class token; pooling leaves them out.
        norm_epsilon: Epsilon of every LayerNorm.
        activation: "gelu_tanh" (as in the reference implementations), "gelu" (erf), ...
        initialization: How weights start, "vision_transformer" or "deit", see
            `layers.initialization`.
        name: Name of the Keras model. It begins the paths of all weights, so it is the same for
            every variant unless given.
        **kwargs: Arguments of `ImageModel`: `num_classes`, `channels`, `preprocessing`, ...

    Attributes:
        grid_size: (rows, columns) of patches.
        num_prefix_tokens: Tokens in front of the registers and patches: the class token, if any.
        pools: Values that `pool` may have.
        position_embeddings: Values that `position_embedding` may have.

    Raises:
        ValueError: A value is not among those named above, the patch does not divide the image,
            or `num_heads` does not divide `width`.
    """

    pools: tuple[str, ...] = ("token", "gap", "map", "none")
    position_embeddings: tuple[str, ...] = ("learned", "sincos2d", "none")

    def __init__(
        self,
        patch_size: int | tuple[int, int],
        width: int,
        depth: int,
        num_heads: int,
        mlp_dim: int,
        image_size: int | tuple[int, int] = 224,
        pool: str = "token",
        representation_size: int | None = None,
        position_embedding: str = "learned",
        position_includes_class_token: bool = True,
        position_stddev: float = 0.02,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        stochastic_depth: float = 0.0,
        stochastic_depth_schedule: str = "linear",
        layer_scale_init: float | None = None,
        num_registers: int = 0,
        norm_epsilon: float = 1e-6,
        activation: str = "gelu_tanh",
        initialization: str = "vision_transformer",
        name: str = "vit",
        **kwargs,
    ):
        super().__init__(image_size=image_size, name=name, **kwargs)
        self.patch_size = as_pair("patch_size", patch_size)
        self.width = width
        self.depth = depth
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.pool = pool
        self.representation_size = representation_size
        self.position_embedding = position_embedding
        self.position_includes_class_token = position_includes_class_token
        self.position_stddev = position_stddev
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.stochastic_depth = stochastic_depth
        self.stochastic_depth_schedule = stochastic_depth_schedule
        self.layer_scale_init = layer_scale_init
        self.num_registers = num_registers
        self.norm_epsilon = norm_epsilon
        self.activation = activation
        self.initialization = initialization
        for parameter in ("width", "depth", "num_heads", "mlp_dim"):
            check_count(parameter, getattr(self, parameter))
        check_choice("pool", pool, self.pools)
        check_choice("position_embedding", position_embedding, self.position_embeddings)
        check_choice(
            "stochastic_depth_schedule", stochastic_depth_schedule, tuple(_STOCHASTIC_DEPTH_RATES)
        )
        check_heads(num_heads, width)
        self.grid_size = self.create_stem()
        self.create_encoder()
        self.create_heads()
        self.build(self.input_shape)

    def create_stem(self) -> tuple[int, int]:
        """Creates what makes vectors of an image, and returns the (rows, columns) of its grid."""
        self.patch_embedding = PatchEmbedding(
            self.width,
            self.patch_size,
            self.initialization,
            dtype=self.dtype_policy,
            name="patch_embedding",
        )
        return grid_size(self.image_size, self.patch_size)

    def create_encoder(self) -> None:
        """Creates everything between the stem and the head."""
        policy = self.dtype_policy
        self.class_token = None
        if self.pool == "token":
            self.class_token = ClassToken(self.initialization, dtype=policy, name="class_token")
        self.positions = self.create_positions(policy)
        self.registers = None
        if self.num_registers:
            self.registers = RegisterTokens(
                self.num_registers,
                offset=self.num_prefix_tokens,
                dtype=policy,
                name="registers",
            )
        rates = _STOCHASTIC_DEPTH_RATES[self.stochastic_depth_schedule]
        self.token_dropout = keras.layers.Dropout(self.dropout, dtype=policy, name="dropout")
        self.blocks = [
            self.create_block(f"block{index:02d}", rate)
            for index, rate in enumerate(rates(self.stochastic_depth, self.depth))
        ]
        self.encoder_norm = LayerNorm(epsilon=self.norm_epsilon, dtype=policy, name="encoder_norm")
        self.map_head = None
        if self.pool == "map":
            self.map_head = MAPHead(
                self.num_heads,
                self.mlp_dim,
                norm_epsilon=self.norm_epsilon,
                activation=self.activation,
                dtype=policy,
                name="map_head",
            )
        self.pre_logits = None
        if self.representation_size is not None:
            self.pre_logits = keras.layers.Dense(
                self.representation_size, activation="tanh", dtype=policy, name="pre_logits"
            )

    def create_block(self, name: str, stochastic_depth: float) -> EncoderBlock:
        """Creates one block of the encoder."""
        return EncoderBlock(
            self.num_heads,
            self.mlp_dim,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            stochastic_depth=stochastic_depth,
            layer_scale_init=self.layer_scale_init,
            norm_epsilon=self.norm_epsilon,
            activation=self.activation,
            initialization=self.initialization,
            dtype=self.dtype_policy,
            name=name,
        )

    @property
    def num_prefix_tokens(self) -> int:
        """How many tokens stand before the registers and patches."""
        return int(self.pool == "token")

    @property
    def position_slots(self) -> int:
        """How many rows of a learned position table belong to tokens before the patches."""
        return self.num_prefix_tokens if self.position_includes_class_token else 0

    @property
    def position_grid(self) -> tuple[int, int]:
        """The (rows, columns) of patches that a learned position table is of."""
        return self.grid_size

    def create_positions(self, policy) -> keras.layers.Layer | None:
        """Creates what adds positions to tokens, or None."""
        if self.position_embedding == "learned":
            return LearnedPositionEmbedding(self.position_stddev, dtype=policy, name="positions")
        if self.position_embedding == "sincos2d":
            return SinCos2DPositionEmbedding(self.grid_size, dtype=policy, name="positions")
        return None

    @property
    def heads(self):
        """See `ImageModel.heads`."""
        return {"head": self.representation_size or self.width}

    @property
    def head_kernel_initializer(self):
        """See `ImageModel.head_kernel_initializer`."""
        return get_initializer(self.initialization, "head_kernel")

    def build(self, input_shape):
        """Creates all weights for [batch, height, width, channels]."""
        self.build_stem(input_shape)
        patches, prefix = math.prod(self.grid_size), self.num_prefix_tokens
        self.build_prefix_tokens((None, patches, self.width))
        if self.positions is not None:
            self.positions.build((None, patches + self.position_slots, self.width))
        if self.registers is not None:
            self.registers.build((None, patches + prefix, self.width))
        tokens = (None, prefix + self.num_registers + patches, self.width)
        for layer in (self.token_dropout, *self.blocks, self.encoder_norm):
            layer.build(tokens)
        if self.map_head is not None:
            self.map_head.build((None, patches, self.width))
        if self.pre_logits is not None:
            self.pre_logits.build((None, self.width))
        self.build_heads()

    def build_stem(self, input_shape) -> None:
        """Creates the stem's weights."""
        self.patch_embedding.build(input_shape)

    def build_prefix_tokens(self, patches_shape) -> None:
        """Creates the tokens that stand before the patches, [batch, patches, width]."""
        if self.class_token is not None:
            self.class_token.build(patches_shape)

    def call(self, images, training=None, intermediates: Intermediates = NOWHERE):
        """Classifies images.

        Args:
            images: Floating-point [batch, height, width, channels].
            training: Whether dropout and stochastic depth are active.
            intermediates: Collector of named tensors, see `extract_features`.

        Returns:
            Logits [batch, num_classes]; [batch, patches, num_classes] for pool "none"; what enters
            the head where num_classes is 0.

        Raises:
            ValueError: The images have another shape or an integer dtype.
        """
        self.check_images(images)
        grid = self.embed(images, training, intermediates)
        tokens = self.encode(grid, training, intermediates)
        return self.classify(tokens, grid.shape[1:3], training, intermediates)

    def embed(self, images, training, intermediates):
        """Runs the stem: [batch, rows, columns, width]."""
        return self.patch_embedding(images)

    def classify(self, tokens, grid_size, training, intermediates):
        """Pools tokens of a grid of `grid_size` patches, and runs the head: see `call`."""
        pooled = self.pool_tokens(tokens, intermediates)
        intermediates.record("head_input", pooled)
        pre_logits = pooled if self.pre_logits is None else self.pre_logits(pooled)
        intermediates.record("pre_logits", pre_logits)
        if self.head is None:
            return pre_logits
        logits = self.head(pre_logits)
        intermediates.record("logits", logits)
        self._record_dense_outputs(tokens, grid_size, intermediates)
        return logits

    def encode(self, grid, training, intermediates):
        """Runs everything between the stem and the head.

        Args:
            grid: Output of the stem, [batch, rows, columns, width].
            training: See `call`.
            intermediates: See `call`.

        Returns:
            Tokens [batch, tokens, width] after the last LayerNorm.
        """
        tokens = self.make_sequence(grid, training, intermediates)
        for block in self.blocks:
            scope = intermediates.scope(block.name)
            tokens = block(tokens, training=training, intermediates=scope)
        tokens = self.encoder_norm(tokens)
        intermediates.record("encoded", tokens)
        return tokens

    def make_sequence(self, grid, training, intermediates):
        """Makes what enters the first block, [batch, tokens, width], of the stem's output."""
        intermediates.record("stem", grid)
        grid_size = grid.shape[1:3]
        tokens = ops.reshape(grid, (ops.shape(grid)[0], math.prod(grid_size), self.width))
        if self.position_includes_class_token:
            tokens = self.add_positions(self.prepend_tokens(tokens), grid_size)
            prefix = self.num_prefix_tokens
            intermediates.record("with_posemb", tokens[:, prefix:] if prefix else tokens)
        else:
            tokens = self.add_positions(tokens, grid_size)
            intermediates.record("with_posemb", tokens)
            tokens = self.prepend_tokens(tokens)
        if self.registers is not None:
            tokens = self.registers(tokens)
        tokens = self.token_dropout(tokens, training=training)
        intermediates.record("tokens", tokens)
        return tokens

    def prepend_tokens(self, tokens):
        """Puts the class token, if any, before the patches."""
        return tokens if self.class_token is None else self.class_token(tokens)

    def add_positions(self, tokens, grid_size):
        """Adds the position embedding, if any, to tokens of a grid of `grid_size` patches."""
        return tokens if self.positions is None else self.positions(tokens)

    def pool_tokens(self, tokens, intermediates):
        """Makes the head's input, [batch, width], or [batch, patches, width] for pool "none"."""
        if self.pool == "token":
            return tokens[:, 0]
        patches = self._patches(tokens)
        if self.pool == "gap":
            return ops.mean(patches, axis=1)
        if self.pool == "map":
            return self.map_head(patches, intermediates=intermediates.scope("map_head"))
        return patches

    def _patches(self, tokens):
        """Leaves out class token and registers: [batch, patches, width]."""
        prefix = self.num_prefix_tokens + self.num_registers
        return tokens[:, prefix:] if prefix else tokens

    def _record_dense_outputs(self, tokens, grid_size, intermediates):
        """Head and representation layer on every patch, as big_vision offers them."""
        if not (intermediates.wants("pre_logits_2d") or intermediates.wants("logits_2d")):
            return
        patches = self._patches(tokens)
        pre_logits = ops.reshape(patches, (ops.shape(patches)[0], *grid_size, self.width))
        if self.pre_logits is not None:
            pre_logits = self.pre_logits(pre_logits)
        intermediates.record("pre_logits_2d", pre_logits)
        intermediates.record("logits_2d", self.head(pre_logits))

    @property
    def intermediate_names(self) -> list[str]:
        """Names of the tensors that `extract_features` can return, in the order of computation."""
        names = ["stem", "with_posemb", "tokens"]
        names += [f"{b.name}/{part}" for b in self.blocks for part in b.intermediate_names]
        names.append("encoded")
        if self.map_head is not None:
            names += ["map_head/attn_weights", "map_head/attn"]
        names += ["head_input", "pre_logits"]
        if self.head is not None:
            names += ["logits", "pre_logits_2d", "logits_2d"]
        return names

    def compute_output_shape(self, input_shape):
        """Returns the shape of the logits, or of what would enter the head."""
        features = self.num_classes or self.representation_size or self.width
        if self.pool == "none":
            return (input_shape[0], math.prod(self.grid_size), features)
        return (input_shape[0], features)


register_family("vit", ViT)
for _name, (_size, _patch, _notation, _changes) in _VARIANTS.items():
    _width, _depth, _mlp_dim, _heads = SIZES[_size]
    _config = {
        "patch_size": _patch,
        "width": _width,
        "depth": _depth,
        "num_heads": _heads,
        "mlp_dim": _mlp_dim,
        **_changes,
    }
    if _config.get("pool") == "map":  # big_vision's initialisation
        _config["position_stddev"] = 1 / math.sqrt(_width)
    register(_name, ViT, _config, _notation)
