"""Low-rank adaptation of dense kernels (LoRA): fine-tuning that leaves the kernels as they are."""

import dataclasses
import re

import keras
import numpy as np

from vit_tf.models.arguments import check_count
from vit_tf.models.base import is_statistic
from vit_tf.models.weight_names import weight_names

# Query, key and value in one, the attention's output, and both layers of the MLPs.
ATTENTION_AND_MLP = r"block\d+/.+/(qkv|out|dense_in|dense_out)/kernel"


@dataclasses.dataclass(frozen=True)
class LoRA:
    r"""Low-rank adaptation (Hu et al., 2021, arXiv:2106.09685), by Keras' `Dense.enable_lora`.

    A kernel W [inputs, outputs] acts as W + alpha / rank * A B, with A [inputs, rank] and
    B [rank, outputs]; A and B are trained, W and all else of the model is not, but for the weights
    that `trained` matches. A starts as in the authors' code (microsoft/LoRA), uniform within
    1 / sqrt(inputs), and B at zero: an adapted model begins as the model that it was.

    Query, key and value are one kernel here, [width, 3 * width], and share an A; the paper adapts
    query and value by an A of their own. Heads begin at zero and are trained whole.

    Args:
        rank: of the change of a kernel.
        alpha: scale of the change, relative to 1 / rank; the paper keeps it where it is when it
            tries other ranks.
        kernels: expression of the kernels that are adapted, which matches their whole names (see
            `weight_names`). Default: those of attention and MLPs. `r"block\d+/attention/.*kernel"`
            is attention alone.
        trained: expression of further weights that are trained.

    Raises:
        ValueError: A number is out of range, or an expression is none.
    """

    rank: int = 8
    alpha: float = 8.0
    kernels: str = ATTENTION_AND_MLP
    trained: str = r"head(_\w+)?/.*"

    def __post_init__(self):
        check_count("LoRA.rank", self.rank)
        if not self.alpha > 0:
            raise ValueError(f"LoRA.alpha must be positive, got {self.alpha}.")
        for name in ("kernels", "trained"):
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                given = getattr(self, name)
                raise ValueError(f"LoRA.{name}: {given!r} is no expression: {error}.") from error

    @property
    def scale(self) -> float:
        """What A B is multiplied by."""
        return self.alpha / self.rank

    def adapt(self, model: keras.Model) -> None:
        """Adds A and B to a model's kernels and freezes the rest; `model.lora` is then this object.

        Load weights before: a file's kernels are those that are adapted.

        Args:
            model: Built.

        Raises:
            ValueError: The model is adapted already, `kernels` matches none of its dense kernels,
                or `trained` no weight.
        """
        if adaptation(model) is not None:
            raise ValueError(
                "The model is adapted by LoRA already; merged_model(model) is one that is not."
            )
        dense = _dense_layers(model)
        chosen = [layer for name, layer in dense.items() if re.fullmatch(self.kernels, name)]
        if not chosen:
            raise ValueError(
                f"LoRA.kernels {self.kernels!r} matches none of the model's dense kernels: "
                f"{', '.join(dense) or 'it has none'}."
            )
        named = weight_names(model.trainable_weights)
        frozen = [w for name, w in named.items() if not re.fullmatch(self.trained, name)]
        if len(frozen) == len(named):
            raise ValueError(
                f"LoRA.trained {self.trained!r} matches no weight; the model has "
                f"{', '.join(sorted({name.partition('/')[0] for name in named}))}."
            )
        for weight in frozen:
            weight.trainable = False
        # Uniform within sqrt(3 / 3 / inputs).
        start = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
        for layer in chosen:
            layer.enable_lora(self.rank, self.alpha, a_initializer=start)
        model.lora = self


def adaptation(model: keras.Model) -> LoRA | None:
    """How a model is adapted; None if it is not."""
    return getattr(model, "lora", None)


def frozen_weights(model: keras.Model) -> list[keras.Variable]:
    """The weights that are not trained because LoRA froze them; none if it did not."""
    if adaptation(model) is None:
        return []
    return [weight for weight in model.non_trainable_weights if not is_statistic(weight)]


def merged_weights(model: keras.Model) -> dict[str, keras.Variable | np.ndarray]:
    """A model's weights by name, LoRA's merged into the kernels: what is to be kept or shown."""
    named = weight_names(model.weights)
    lora = adaptation(model)
    if lora is None:
        return named
    changed = {name for name in named if name.endswith("/kernel") and lora_part(name, "a") in named}
    parts = {lora_part(name, part) for name in changed for part in "ab"}
    return {
        name: merge(weight, *(named[lora_part(name, part)] for part in "ab"), lora.scale)
        if name in changed
        else weight
        for name, weight in named.items()
        if name not in parts
    }


def merged_model(model: keras.Model) -> keras.Model:
    """The same model without LoRA: it computes the same, and all of it is trainable.

    Args:
        model: Of `create_model`; one that is not adapted is returned as it is.
    """
    if adaptation(model) is None:
        return model
    merged = type(model).from_config(model.get_config())
    values = merged_weights(model)
    for name, weight in weight_names(merged.weights).items():
        weight.assign(values[name])
    return merged


def lora_part(kernel: str, part: str) -> str:
    """Name of a kernel's A (`"a"`) or B (`"b"`)."""
    return f"{kernel.rpartition('/')[0]}/lora_kernel_{part}"


def merge(kernel, a, b, scale: float) -> np.ndarray:
    """The kernel that an adapted one acts as, [inputs, outputs], in the kernel's dtype."""
    kernel = np.asarray(kernel)
    change = np.asarray(a, np.float64) @ np.asarray(b, np.float64)
    return (kernel.astype(np.float64) + scale * change).astype(kernel.dtype)


def _dense_layers(model: keras.Model) -> dict[str, keras.layers.Dense]:
    """A model's dense layers by the names of their kernels, in the model's order."""
    layers = {
        id(weight): layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.Dense)
        for weight in layer.weights
        if weight.name == "kernel"
    }
    named = weight_names(model.weights).items()
    return {name: layers[id(weight)] for name, weight in named if id(weight) in layers}
