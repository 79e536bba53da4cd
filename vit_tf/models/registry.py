"""Models by name: families with free configuration and their published variants."""

import dataclasses
import fnmatch
import inspect
import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from vit_tf.models.base import constructor_parameters, unused_parameters
from vit_tf.models.unallocated import without_allocation
from vit_tf.suggestions import did_you_mean


@dataclasses.dataclass(frozen=True)
class Entry:
    """A registered name: the class that builds it and the configuration that makes it so."""

    model_class: type[keras.Model]
    config: Mapping[str, Any]
    notation: str | None
    is_family: bool

    def defaults(self) -> dict[str, Any]:
        """What every keyword is where `create_model` is given none of them."""
        parameters = constructor_parameters(self.model_class).items()
        given = {name: parameter.default for name, parameter in parameters}
        return {k: v for k, v in given.items() if v is not inspect.Parameter.empty} | dict(
            self.config
        )


_ENTRIES: dict[str, Entry] = {}
# Keywords of keras.Model that any family accepts beside its own.
_COMMON_KEYWORDS = ("dtype", "name", "trainable")
# What create_model and load_checkpoint fill in.
_RESERVED_KEYWORDS = ("variant", "origin")


def register_family(
    name: str, model_class: type[keras.Model], defaults: Mapping[str, Any] | None = None
) -> None:
    """Makes `create_model(name, **configuration)` build a `model_class` of any configuration.

    Args:
        name: Lower-case name of the family, e.g. "vit".
        model_class: Class whose constructor takes the configuration and `variant`.
        defaults: What the family sets where the configuration says nothing.
    """
    _add(name, Entry(model_class, dict(defaults or {}), None, is_family=True))


def register(
    name: str,
    model_class: type[keras.Model],
    config: Mapping[str, Any],
    notation: str | None = None,
) -> None:
    """Registers a published variant.

    Args:
        name: Lower-case name of the variant, e.g. "vit_b16".
        model_class: Class whose constructor takes the configuration and `variant`.
        config: Keyword arguments that make the variant; `create_model` may override each.
        notation: How the paper writes it, e.g. "ViT-B/16".

    Raises:
        ValueError: The name or the notation is taken.
    """
    _add(name, Entry(model_class, dict(config), notation, is_family=False))


def _add(name, entry):
    notations = {known.notation for known in _ENTRIES.values()} - {None}
    if name in _ENTRIES or entry.notation in notations:
        raise ValueError(f"Model {name!r} (notation {entry.notation!r}) is already registered.")
    _ENTRIES[name] = entry


def registered() -> dict[str, Entry]:
    """Returns what stands behind every registered name, families included."""
    return dict(_ENTRIES)


def list_models(pattern: str = "*") -> list[str]:
    """Returns the sorted names of all registered variants that match a glob, e.g. "vit_*16"."""
    names = [name for name, entry in _ENTRIES.items() if not entry.is_family]
    return sorted(fnmatch.filter(names, pattern))


def list_families() -> list[str]:
    """Returns the sorted names of the families that take a free configuration, e.g. "vit"."""
    return sorted(name for name, entry in _ENTRIES.items() if entry.is_family)


def create_model(name: str, *, include_top: bool = True, **overrides) -> keras.Model:
    """Builds a model with freshly initialised weights.

    Args:
        name: A registered variant ("vit_b16"), a paper's notation ("ViT-B/16", in any case unless
            two variants differ by nothing else, as ViT-g/14 and ViT-G/14 do), or a family ("vit"),
            whose configuration is then given in full.
        include_top: False leaves out the head, as `num_classes=0` does.
        **overrides: Keyword arguments of the family's constructor, e.g. `num_classes`,
            `image_size`; and `name`, `dtype` and `trainable` as every Keras model has them.

    Returns:
        The model; `model.variant` is the registered name, or None for a free configuration.

    Raises:
        ValueError: The name is unknown; the closest names are given.
        TypeError: A keyword is unknown or missing; the valid ones are given.
    """
    name = resolve_name(name)
    entry = _ENTRIES[name]
    config = {**entry.config, **overrides}
    if not include_top:
        config["num_classes"] = 0
    config = _without_fixed(entry.model_class, config)
    _check_keywords(name, entry.model_class, config)
    return entry.model_class(**config, variant=None if entry.is_family else name)


def count_parameters(name: str, **overrides) -> int:
    """Returns the number of trainable parameters of `create_model(name, **overrides)`.

    No weight is allocated, so this also works for models that do not fit this machine's memory.
    """

    def count():
        weights = create_model(name, **overrides).trainable_variables
        return sum(int(np.prod(weight.shape)) for weight in weights)

    return without_allocation(count)


def resolve_name(name: str) -> str:
    """Returns the registered name for a name or a paper's notation.

    Other spellings are understood where they mean one model: "B_16", "vit-b/16", "R50+ViT-B/16",
    "DeiT-III-L/16".

    Raises:
        ValueError: There is none, or more than one, as where notations differ only in case.
    """
    if name in _ENTRIES:
        return name
    by_notation = {entry.notation: key for key, entry in _ENTRIES.items() if entry.notation}
    if name in by_notation:
        return by_notation[name]
    meant = {
        key: entry.notation
        for key, entry in _ENTRIES.items()
        if _spelling(name) in (_spelling(key), _spelling(entry.notation or key))
    }
    if not meant:
        raise ValueError(_unknown_name(name, [*_ENTRIES, *by_notation]))
    (key, notation), *others = meant.items()
    if others or _is_another_size(str(name), notation or key):
        listed = " and ".join(f"{known!r} ({key})" for key, known in meant.items())
        raise ValueError(
            f"Model {name!r} is ambiguous: {listed}; the case of letters tells s from S and g from "
            "G. Give the name in brackets."
        )
    return key


def _spelling(name):
    """A name without what its spellings differ in: case, separators, "ViT"."""
    letters = str(name).lower().replace("\N{MULTIPLICATION SIGN}", "x")
    letters = re.sub(r"[^a-z0-9.]", "", letters)
    letters = re.sub(r"^mlp(?=mixer)|vit", "", letters)
    return letters.replace("xs", "s").replace("gigantic", "g").replace("deitiii", "deit3")


def _is_another_size(name, notation):
    """Whether capitals in `name` say S or G where the model is a small s or g."""
    sizes = [re.search(r"([sSgG])[^a-zA-Z]*\d+", text) for text in (name, notation)]
    return all(sizes) and sizes[0][1].isupper() and sizes[1][1].islower()


def _unknown_name(name, known):
    hint = did_you_mean(name, known, count=4, cutoff=0.5)
    return f"Unknown model {name!r}.{hint} vit_tf.list_models() lists all names."


def _without_fixed(model_class, config):
    """Leaves out keywords of which the family has one value only, where they are given that."""
    fixed = unused_parameters(model_class)
    return {key: value for key, value in config.items() if key not in fixed or value != fixed[key]}


def _check_keywords(name, model_class, config):
    parameters = {
        key: parameter
        for key, parameter in constructor_parameters(model_class).items()
        if key not in _RESERVED_KEYWORDS
    }
    valid = [*parameters, *(key for key in _COMMON_KEYWORDS if key not in parameters)]
    for key in config:
        if key not in valid:
            hint = did_you_mean(key, valid, count=2)
            raise TypeError(
                f"Model {name!r} has no parameter {key!r}.{hint} Valid: {', '.join(valid)}."
            )
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and key not in config
    ]
    if missing:
        raise TypeError(f"Model {name!r} also needs {', '.join(missing)}.")
