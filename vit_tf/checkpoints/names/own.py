"""Our own names: the paths of the weights, as `.keras` files and training checkpoints hold them."""

import re

from vit_tf.checkpoints.names.naming import Naming, Tensor
from vit_tf.layers.offset_attention import BIASES
from vit_tf.models.base import ImageModel
from vit_tf.models.weight_names import weight_names

# Tokens that may stand before the patches, in their order.
PREFIX_TOKENS = ("class_token/token", "distillation_token/token")
REGISTERS = "registers/registers"


def weights_by_path(model) -> dict:
    """A model's weights by path, see `models.weight_names`."""
    return weight_names(model.weights)


def patch_kernel_shape(model) -> tuple[int, int, int, int]:
    """(height, width, channels in, channels out) of a model's patch embedding."""
    return tuple(weights_by_path(model)["patch_embedding/projection/kernel"].shape)


def tensors(model):
    """Names every weight of any model as its path says."""
    for path, weight in weights_by_path(model).items():
        yield Tensor(path, (path,), tuple(weight.shape), role=_role(path))


def _role(path):
    """What loading can adapt a weight to."""
    if path == "positions/table":
        return "positions"
    if path == "patch_embedding/projection/kernel":
        return "patch_kernel"
    if path.endswith(f"/{BIASES}"):
        return "grid"
    if re.fullmatch(r"stage\d+/positions/table", path):
        return "grid_pairs"
    return "head" if re.fullmatch(r"head(_\w+)?/(kernel|bias)", path) else ""


OWN = Naming(
    "vit_tf",
    covers=(ImageModel.__name__,),
    marker=lambda keys, root: False,  # the kind of file tells
    tensors=tensors,
    position_method="corner_aligned",
    configure=None,
    heads=("head/", "head_dist/"),
    prefix_tokens=PREFIX_TOKENS,
    extension="",
)
