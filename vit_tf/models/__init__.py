"""Model families, one file each; importing this package registers all of them."""

import importlib
import pkgutil

from vit_tf.models.card import ModelCard, Origin
from vit_tf.models.features import extract_features
from vit_tf.models.folding import fold_batch_norms
from vit_tf.models.lora import LoRA
from vit_tf.models.preprocessing import Preprocessing
from vit_tf.models.registry import (
    count_parameters,
    create_model,
    list_families,
    list_models,
    register,
    register_family,
    resolve_name,
)
from vit_tf.models.unallocated import without_allocation

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "LoRA",
    "ModelCard",
    "Origin",
    "Preprocessing",
    "count_parameters",
    "create_model",
    "extract_features",
    "fold_batch_norms",
    "list_families",
    "list_models",
    "register",
    "register_family",
    "resolve_name",
    "without_allocation",
]
