"""DynamicViT (Rao et al. 2021, "DynamicViT: Efficient Vision Transformers with Dynamic ...").

A DeiT that drops tokens on its way: at some blocks a small module scores the tokens, and only the
best go on. Numbers follow raoyongming/DynamicViT, `models/dyvit.py`.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import keras
from keras import ops

from vit_tf.layers import (
    NOWHERE,
    Intermediates,
    TokenPredictor,
    gumbel_noise,
    straight_through_decision,
)
from vit_tf.models.deit import DEIT
from vit_tf.models.registry import register, register_family
from vit_tf.models.vit import SIZES, ViT

# Name -> the paper's notation and width, depth, MLP width, heads; DynamicViT prunes DeiTs.
_VARIANTS = {
    "dynamic_vit_256": ("DynamicViT-256/0.7", (256, 12, 1024, 4)),
    "dynamic_vit_s16": ("DynamicViT-S/0.7", SIZES["s"]),
    "dynamic_vit_b16": ("DynamicViT-B/0.7", SIZES["b"]),
}


@keras.saving.register_keras_serializable(package="vit_tf")
class DynamicViT(ViT):
    """Vision Transformer that drops tokens; images to [batch, num_classes] logits.

    In inference the best tokens are gathered before each of `pruning_blocks`, and go on in the
    order of their scores: shapes are static, and what follows costs less. In training all tokens
    stay, decisions are drawn (`layers.straight_through_decision`), and those that are dropped are
    attended to by none but themselves (`layers.attention.kept_attention_weights`), so that
    gradients reach the scores. The class token is always kept.

    Args:
        pruning_blocks: Blocks before which tokens are dropped, counted from 0, rising.
        keep_ratios: For each of them the share of all patches that is kept, falling; at least one
            patch is.
        **kwargs: Arguments of `ViT`; the class token is always the one that is read.

    Attributes:
        kept_tokens: How many patches are kept at each of `pruning_blocks` in inference.

    Raises:
        ValueError: As `ViT`, or: blocks or shares cannot be, or are not as many.
    """

    unused_keywords = ("pool", "representation_size", "num_registers")

    def __init__(
        self,
        pruning_blocks: Sequence[int] = (3, 6, 9),
        keep_ratios: Sequence[float] = (0.7, 0.7**2, 0.7**3),
        **kwargs,
    ):
        self.pruning_blocks = tuple(pruning_blocks)
        self.keep_ratios = tuple(keep_ratios)
        super().__init__(**kwargs)

    def create_encoder(self):
        """Creates what a ViT has, and a predictor for each of `pruning_blocks`."""
        self._check_pruning()
        super().create_encoder()
        # Half precision would make many scores the same.
        wide = keras.backend.result_type(self.compute_dtype, "float32")
        self.predictors = [
            TokenPredictor(self.initialization, dtype=wide, name=f"predictor{stage}")
            for stage in range(len(self.pruning_blocks))
        ]
        self.seed_generator = keras.random.SeedGenerator()
        self._drops = True

    def _check_pruning(self):
        blocks, ratios = self.pruning_blocks, self.keep_ratios
        if list(blocks) != sorted(set(blocks)) or not all(0 <= b < self.depth for b in blocks):
            raise ValueError(
                f"pruning_blocks={blocks} must be rising numbers of blocks, below depth="
                f"{self.depth}."
            )
        if len(ratios) != len(blocks) or not all(
            0 < ratio <= before for before, ratio in zip((1, *ratios), ratios, strict=False)
        ):
            raise ValueError(
                f"keep_ratios={ratios} must be {len(blocks)} shares in (0, 1], one for each of "
                f"pruning_blocks={blocks}, none larger than the one before it."
            )

    @contextlib.contextmanager
    def keeping_all(self) -> Iterator[None]:
        """Within, inference drops no token: what the unpruned model says."""
        self._drops = False
        try:
            yield
        finally:
            self._drops = True

    @property
    def forms(self) -> dict[str, Callable[[], AbstractContextManager]]:
        """`"full"` drops no token, `"pruned"` does, as the model usually is; see `ImageModel`."""
        return {"full": self.keeping_all, "pruned": contextlib.nullcontext}

    @property
    def kept_tokens(self) -> tuple[int, ...]:
        """How many patches are kept at each of `pruning_blocks` in inference."""
        return self._kept_of(math.prod(self.grid_size))

    def _kept_of(self, patches):
        return tuple(max(1, int(patches * ratio)) for ratio in self.keep_ratios)

    def build(self, input_shape):
        """Creates all weights for [batch, height, width, channels]."""
        for predictor in self.predictors:
            predictor.build((None, None, self.width))
        super().build(input_shape)

    def call(
        self,
        images,
        training=None,
        intermediates: Intermediates = NOWHERE,
        decisions: Sequence | None = None,
        noise: Sequence | None = None,
    ):
        """Classifies images.

        Args:
            images: Floating-point [batch, height, width, channels].
            training: Whether tokens are masked by drawn decisions rather than gathered, and
                dropout and stochastic depth are active.
            intermediates: Collector of named tensors, see `extract_features`. Of each stage these
                are `predictor0/log_probs` and `predictor0/policy` [batch, patches], 1 for those
                that are kept; in inference also `kept` (numbers among the tokens that were still
                there, the best first) and `kept_positions` (the same in the whole grid).
            decisions: For each stage [batch, patches], 1 for those to keep: masks by these, in
                inference too.
            noise: For each stage Gumbel noise [batch, patches, 2] instead of a drawn one, where
                decisions are drawn.

        Returns:
            Logits [batch, num_classes], or what enters the head where num_classes is 0.

        Raises:
            ValueError: The images have another shape or an integer dtype.
        """
        self.check_images(images)
        grid = self.embed(images, training, intermediates)
        tokens = self.make_sequence(grid, training, intermediates)
        if training or decisions is not None:
            tokens = self._mask(tokens, training, intermediates, decisions, noise)
        else:
            tokens = self._gather(tokens, intermediates)
        tokens = self.encoder_norm(tokens)
        intermediates.record("encoded", tokens)
        return self.classify(tokens, None, training, intermediates)

    def _gather(self, tokens, intermediates):
        """Runs the blocks on fewer and fewer tokens."""
        patches = tokens.shape[1] - 1
        positions = ops.broadcast_to(ops.arange(patches), (ops.shape(tokens)[0], patches))
        for index, block in enumerate(self.blocks):
            if self._drops and index in self.pruning_blocks:
                stage = self.pruning_blocks.index(index)
                scope = intermediates.scope(f"predictor{stage}")
                log_probs = self.predictors[stage](tokens[:, 1:])
                _, kept = ops.top_k(log_probs[..., 0], self._kept_of(patches)[stage])
                positions = ops.take_along_axis(positions, kept, axis=1)
                tokens = ops.concatenate(
                    [tokens[:, :1], ops.take_along_axis(tokens[:, 1:], kept[..., None], axis=1)],
                    axis=1,
                )
                scope.record("log_probs", log_probs)
                scope.record("kept", kept)
                scope.record("kept_positions", positions)
                if scope.wants("policy"):
                    policy = ops.sum(ops.one_hot(positions, patches, dtype="float32"), axis=1)
                    scope.record("policy", policy)
            tokens = block(tokens, intermediates=intermediates.scope(block.name))
        return tokens

    def _mask(self, tokens, training, intermediates, decisions, noise):
        """Runs the blocks on all tokens, of which fewer and fewer are attended to."""
        policy = keep = None
        for index, block in enumerate(self.blocks):
            if index in self.pruning_blocks:
                stage = self.pruning_blocks.index(index)
                scope = intermediates.scope(f"predictor{stage}")
                log_probs = self.predictors[stage](tokens[:, 1:], keep=policy)
                if decisions is None:
                    drawn = self._noise(log_probs) if noise is None else noise[stage]
                    decision = straight_through_decision(log_probs, drawn)
                else:
                    decision = ops.cast(decisions[stage], log_probs.dtype)
                policy = decision if policy is None else policy * decision
                keep = ops.concatenate([ops.ones_like(policy[:, :1]), policy], axis=1)
                scope.record("log_probs", log_probs)
                scope.record("policy", policy)
            tokens = block(
                tokens,
                training=training,
                intermediates=intermediates.scope(block.name),
                keep=keep,
            )
        return tokens

    def _noise(self, log_probs):
        return gumbel_noise(ops.shape(log_probs), log_probs.dtype, self.seed_generator)

    @property
    def intermediate_names(self):
        """Names of the tensors that `extract_features` can return in inference."""
        names = [n for n in super().intermediate_names if n not in ("pre_logits_2d", "logits_2d")]
        parts = ("log_probs", "kept", "kept_positions", "policy")
        for stage, block in enumerate(self.pruning_blocks):
            place = names.index(f"block{block:02d}/attn_weights")
            names[place:place] = [f"predictor{stage}/{part}" for part in parts]
        return names


register_family("dynamic_vit", DynamicViT, DEIT)
for _name, (_notation, (_width, _depth, _mlp_dim, _heads)) in _VARIANTS.items():
    _sizes = {"width": _width, "depth": _depth, "num_heads": _heads, "mlp_dim": _mlp_dim}
    register(_name, DynamicViT, {"patch_size": 16, **_sizes, **DEIT}, _notation)
