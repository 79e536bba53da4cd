"""The pages of the API: one a package, of every public module in it."""

import ast
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import vit_tf

_FOLDER = "reference/api"


def pages() -> dict[str, str]:
    """Path in the site -> Markdown, which mkdocstrings fills in; in the order of reading."""
    packages = {"vit_tf": _public_face()}
    for name, modules in sorted(_packages().items()):
        packages[name.removeprefix("vit_tf.")] = _package_page(name, modules)
    return {f"{_FOLDER}/{name}.md": text for name, text in packages.items()}


def first_paragraph(docstring: str | None) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join((docstring or "").strip().partition("\n\n")[0].split())


def _packages() -> dict[str, list[str]]:
    """Package -> its modules, sorted; packages without modules of their own are left out."""
    found: dict[str, list[str]] = {}
    for module in pkgutil.walk_packages(vit_tf.__path__, "vit_tf."):
        package = module.name.rpartition(".")[0]
        if not module.ispkg and package != "vit_tf" and _is_public(module.name):
            found.setdefault(package, []).append(module.name)
    return found


def _is_public(module: str) -> bool:
    """Whether a module defines a name that does not begin with an underscore."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return any(
        isinstance(node, kinds) and not node.name.startswith("_") for node in _tree(module).body
    )


def _tree(name: str) -> ast.Module:
    path = Path(vit_tf.__path__[0], *name.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _docstring(module: str) -> str:
    return first_paragraph(ast.get_docstring(_tree(module)))


def _package_page(package: str, modules: list[str]) -> str:
    rows = [f"| [`{name.rpartition('.')[2]}`][{name}] | {_docstring(name)} |" for name in modules]
    parts = (f"::: {name}" for name in modules)
    head = (f"# {package}", _docstring(package), "\n".join(["| module | |", "|---|---|", *rows]))
    return "\n\n".join((*head, *parts)) + "\n"


def _public_face() -> str:
    rows = "\n".join(_public_rows())
    return f"""# vit_tf

What `import vit_tf` gives; all else is in the rooms.

| name | |
|---|---|
{rows}
"""


def _public_rows() -> Iterator[str]:
    for name in vit_tf.__all__:
        part = getattr(vit_tf, name)
        path = f"{part.__module__}.{part.__qualname__}"
        yield f"| [`{name}`][{path}] | {first_paragraph(part.__doc__)} |"
