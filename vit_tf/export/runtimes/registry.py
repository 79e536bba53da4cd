"""All kinds of models for other runtimes, and the one that a name means."""

import functools
import importlib
import pkgutil

from vit_tf.export import runtimes
from vit_tf.export.runtimes.base import Kind
from vit_tf.suggestions import did_you_mean


@functools.cache
def all_kinds() -> dict[str, Kind]:
    """Every `Kind` in the `KINDS` of a file of this folder, by name."""
    modules = [
        importlib.import_module(f"{runtimes.__name__}.{module.name}")
        for module in pkgutil.iter_modules(runtimes.__path__)
    ]
    kinds = [kind for module in modules for kind in getattr(module, "KINDS", ())]
    return {kind.name: kind for kind in kinds}


def get_kind(name: str) -> Kind:
    """Returns the kind of that name.

    Raises:
      ValueError: if there is none, with the closest.
    """
    kinds = all_kinds()
    if name in kinds:
        return kinds[name]
    hint = did_you_mean(name, kinds)
    raise ValueError(f"no kind {name!r}; there are {', '.join(kinds)}.{hint}")
