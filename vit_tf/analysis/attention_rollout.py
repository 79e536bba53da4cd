"""Attention rollout: which patches a Transformer's output attends to, through all its layers.

Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3: attention is
followed through the layers as if values were mixed linearly; the identity stands for the residual
connection.
"""

from collections.abc import Sequence
from typing import Any

from keras import ops

_FUSIONS = {"mean": ops.mean, "max": ops.max, "min": ops.min}


def attention_rollout(attention: Sequence[Any], fuse_heads: str = "mean") -> list[Any]:
    """Rolls attention out over layers.

    Per layer the heads become one matrix, to which the identity is added and whose rows are divided
    by their sums. The rollout of a layer is this matrix times the rollout of the layer below.

    Args:
      attention: of each layer, the first first, the weights [batch, heads, queries, keys]; queries
        and keys are the same tokens.
      fuse_heads: how heads become one matrix, by their `"mean"` (the paper's), `"max"` or `"min"`.

    Returns:
      The rollout up to and including each layer, [batch, tokens, tokens]: how much of which input
      token (last axis) is in which token. Rows sum to one.

    Raises:
      ValueError: there is no layer, or the fusion is unknown.
    """
    if fuse_heads not in _FUSIONS:
        known = ", ".join(map(repr, _FUSIONS))
        raise ValueError(f"fuse_heads must be one of {known}, got {fuse_heads!r}")
    if not len(attention):
        raise ValueError("attention of no layer was given; a rollout needs that of one at least")
    rollouts = []
    for weights in attention:
        mixed = _FUSIONS[fuse_heads](weights, axis=1)
        mixed = mixed + ops.eye(mixed.shape[-1], dtype=mixed.dtype)
        mixed = mixed / ops.sum(mixed, axis=-1, keepdims=True)
        rollouts.append(ops.matmul(mixed, rollouts[-1]) if rollouts else mixed)
    return rollouts


def rollout_map(
    rollout: Any, grid_size: tuple[int, int], class_tokens: int = 0, before_patches: int = 0
) -> Any:
    """What an image's representation takes from each patch.

    Args:
      rollout: [batch, tokens, tokens], see `attention_rollout`.
      grid_size: (rows, columns) of patches, which are the last tokens.
      class_tokens: how many tokens stand first that images are classified by, such as class and
        distillation token: the map is the mean of their rows. 0: the mean of the patches' rows, as
        of models that average patches.
      before_patches: all tokens before the patches, registers among them.

    Returns:
      [batch, rows, columns], not renormalised: what goes to other tokens than patches is missing
      from the sum.

    Raises:
      ValueError: the tokens are not as many as the layout says.
    """
    rows, columns = grid_size
    tokens = rollout.shape[-1]
    if tokens != before_patches + rows * columns or class_tokens > before_patches:
        raise ValueError(
            f"a rollout over {tokens} tokens cannot be a map of {rows}x{columns} patches behind "
            f"{before_patches} other tokens, {class_tokens} of them class tokens"
        )
    readers = rollout[:, :class_tokens] if class_tokens else rollout[:, before_patches:]
    return ops.reshape(ops.mean(readers[:, :, before_patches:], axis=1), (-1, rows, columns))
