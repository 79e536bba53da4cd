"""The gin reference: every name that a gin file can bind, its parameters and their defaults."""

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from api_pages import first_paragraph
from griffe import Docstring

from vit_tf.models.base import constructor_parameters
from vit_tf.models.registry import registered
from vit_tf.training import configuration, run  # noqa: F401  (`run` makes itself known to gin)

_HEAD = "| parameter | default | |\n|---|---|---|"
# What `create_model` fills in by itself.
_OWN = ("variant", "origin")


def configurables_page() -> str:
    """Markdown: a section for each room, in it each configurable."""
    by_room = sorted(configuration.configurables().items(), key=lambda item: _room(item[1]))
    sections = [
        "# gin",
        "A binding is `Name.parameter = value`, in a file or as `--gin_param`; a part is referred "
        "to as `@Name` (the class or function) or `@Name()` (what it makes). "
        "`scope/Name.parameter` binds for `@scope/Name` alone. "
        "An unknown name is an error with the closest ones. What "
        "`create_model` takes besides depends on the family: see [Families](families.md).",
    ]
    for room, parts in itertools.groupby(by_room, lambda item: _room(item[1])):
        sections.append(f"## {room}")
        sections += [_configurable(name, part) for name, part in parts]
    return "\n\n".join(sections) + "\n"


def families_page() -> str:
    """Markdown: the keywords of each family of models and what they are by default."""
    sections = [
        "# Families",
        "What `vit_tf.create_model(family, ...)` takes, and gin as `create_model.keyword = ...`. A "
        "registered variant sets sizes; each may be given anew. Names and costs of the variants: "
        "[Models](models.md).",
    ]
    families = {name: entry for name, entry in registered().items() if entry.is_family}
    for name, entry in sorted(families.items()):
        made = entry.model_class
        parameters = constructor_parameters(made)
        defaults = {key: parameter.default for key, parameter in parameters.items()}
        defaults |= entry.config
        described = {key: text for base in reversed(made.__mro__) for key, text in _described(base)}
        rows = [
            _row(key, default, described.get(key, ""))
            for key, default in defaults.items()
            if key not in _OWN
        ]
        link = f"[`{made.__name__}`][{_path(made)}]"
        summary = f"{first_paragraph(made.__doc__)} See {link}."
        sections += [f"## {name}", summary, "\n".join([_HEAD, *rows])]
    return "\n\n".join(sections) + "\n"


def _configurable(name: str, part: Callable) -> str:
    parameters = inspect.signature(part).parameters.values()
    described = dict(_described(part))
    rows = [
        _row(_written(parameter), parameter.default, described.get(parameter.name, ""))
        for parameter in parameters
        if not (_room(part) == "keras" and parameter.kind is inspect.Parameter.VAR_KEYWORD)
    ]
    return "\n\n".join(
        [f"### {name}", _summary(part), "\n".join([_HEAD, *rows]) if rows else "No parameters."]
    )


def _summary(part: Callable) -> str:
    text = first_paragraph(part.__doc__)
    if _room(part) == "keras":
        return f"{text} Keras' own: `keras.{_keras_folder(part)}.{part.__name__}`."
    return f"{text} See [`{part.__name__}`][{_path(part)}]."


def _keras_folder(part: Callable) -> str:
    return "losses" if ".losses" in part.__module__ else "optimizers"


def _path(part: Callable) -> str:
    return f"{part.__module__}.{part.__qualname__}"


def _room(part: Callable) -> str:
    """The package below vit_tf that defines a part, or "keras"."""
    first, *rest = part.__module__.split(".")
    return rest[0] if first == "vit_tf" else first


def _written(parameter: inspect.Parameter) -> str:
    stars = {inspect.Parameter.VAR_KEYWORD: "**", inspect.Parameter.VAR_POSITIONAL: "*"}
    return stars.get(parameter.kind, "") + parameter.name


def _described(part: Any) -> Iterable[tuple[str, str]]:
    """Parameters that a docstring tells of, each with the first paragraph about it."""
    text = inspect.cleandoc(part.__doc__ or "")
    for section in Docstring(text).parse("google", warnings=False):
        if section.kind.value in ("parameters", "attributes"):
            for entry in section.value:
                yield entry.name.lstrip("*"), first_paragraph(entry.description)


def _row(name: str, default: Any, text: str) -> str:
    cells = (f"`{name}`", _value(default), text)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _value(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return ""
    if isinstance(default, type) or callable(default):
        return f"`{default.__name__}`"
    if isinstance(default, Mapping):
        default = dict(default)
    return f"`{default!r}`"
