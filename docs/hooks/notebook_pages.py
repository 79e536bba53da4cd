"""The page of the notebooks, made of their own first cells, and the notebooks to take away."""

import json
from pathlib import Path

_ABOUT = """\
# Notebooks

Made for Colab, with public weights and data that need no account, and executed by the tests from
top to bottom, offline, on small data; none was run on Colab by us yet. What you may want to change
stands in one cell, its settings; papermill sets them too:
`papermill colabs/1_quickstart.ipynb done.ipynb -p IMAGE file:///tmp/me.jpg`. Where the project is
not installed, the first cell installs it from the address that you write there as `REPOSITORY`.
"""


def files(root: Path) -> dict[str, Path]:
    """Path in the site -> notebook, in their order."""
    return {f"colabs/{path.name}": path for path in sorted((root / "colabs").glob("*.ipynb"))}


def page(root: Path) -> str:
    """Markdown: of each notebook the title, a link to it, and how it begins."""
    return "\n".join([_ABOUT, *(_section(*item) for item in files(root).items())])


def _section(link: str, notebook: Path) -> str:
    """The first cell, whose heading becomes one of the page's, and the link."""
    first = json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]
    title, _, text = "".join(first["source"]).partition("\n")
    return f"#{title}\n{text}\n\n[{notebook.name}]({link})\n"
