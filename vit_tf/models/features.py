"""Named intermediate tensors of any model of the garden."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from vit_tf.layers.intermediates import Intermediates
from vit_tf.suggestions import did_you_mean


def extract_features(
    model: keras.Model, images, names: Iterable[str], training: bool = False, **arguments
) -> dict[str, Any]:
    """Runs the model once and returns intermediate tensors by name.

    The forward pass is the model's own: nothing is computed twice. Inside `tf.function`, whatever
    the asked names do not need is pruned.

    Args:
        model: A model of this package: it has `intermediate_names` and its `call` takes
            `intermediates`.
        images: [batch, height, width, channels] in the range that `model.preprocessing` names.
        names: One name or several out of `model.intermediate_names`, e.g. "block03/out".
        training: Whether dropout and stochastic depth are active.
        **arguments: What else the model's `call` takes, e.g. `patch_size` of a FlexiViT.

    Returns:
        A dict with exactly the asked names, in that order.

    Raises:
        ValueError: The model has no intermediate of a name; the closest names are given.
    """
    names = [names] if isinstance(names, str) else list(names)
    check_intermediates(names, model.intermediate_names)
    intermediates = Intermediates(names)
    model(images, training=training, intermediates=intermediates, **arguments)
    return {name: intermediates.tensors[name] for name in names}


def check_intermediates(names: Iterable[str], available: Sequence[str]) -> None:
    """Raises ValueError, with the closest names, for a tensor that a model does not have.

    Args:
        names: What is asked for.
        available: `model.intermediate_names`.
    """
    for name in names:
        if name not in available:
            hint = did_you_mean(name, available, cutoff=0.5)
            raise ValueError(
                f"This model has no intermediate {name!r}.{hint} "
                f"All {len(available)} names stand in model.intermediate_names."
            )
