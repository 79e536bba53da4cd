"""Notebooks of `colabs/`: read, their settings replaced, executed, and what came out of them."""

import ast
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import nbclient
import nbformat
from IPython.core.inputtransformer2 import TransformerManager

ROOT = Path(__file__).resolve().parents[2]
PATHS = sorted((ROOT / "colabs").glob("*.ipynb"))
_TIMEOUT = 600  # seconds a cell


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook as it is stored."""
    return nbformat.read(path, as_version=nbformat.NO_CONVERT)


def settings_cell(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The one cell with the tag `parameters`, as papermill has it."""
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    return cell


def settings(notebook: nbformat.NotebookNode) -> dict[str, object]:
    """Name -> value, of the settings; anything but an assignment of a literal is an error."""
    values = {}
    for statement in ast.parse(settings_cell(notebook).source).body:
        assert isinstance(statement, ast.Assign), ast.unparse(statement)
        (target,) = statement.targets
        values[target.id] = ast.literal_eval(statement.value)
    return values


def transformed(cell: nbformat.NotebookNode) -> str:
    """A code cell as Python, magics and shell commands as calls."""
    return TransformerManager().transform_cell(cell.source)


def python(notebook: nbformat.NotebookNode) -> str:
    """All code cells as one Python module."""
    return "\n".join(transformed(cell) for cell in notebook.cells if cell.cell_type == "code")


def text(notebook: nbformat.NotebookNode) -> str:
    """The sources of all cells; shell commands stand as a page shows them."""
    return "\n".join(re.sub(r"^!", "", cell.source, flags=re.M) for cell in notebook.cells)


@dataclasses.dataclass(frozen=True)
class Executed:
    """What a notebook that ran to its end put out.

    Args:
        cells: Cell id -> its outputs.
    """

    cells: Mapping[str, list[nbformat.NotebookNode]]

    def printed(self, cell: str) -> str:
        """What a cell wrote on standard output."""
        outputs = self.cells[cell]
        return "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")

    def figures(self, cell: str) -> int:
        """How many pictures a cell shows."""
        return sum("image/png" in output.get("data", {}) for output in self.cells[cell])

    def markdown(self, cell: str) -> str:
        """The text that a cell displays."""
        return "\n".join(
            output.get("data", {}).get("text/markdown", "") for output in self.cells[cell]
        )


def execute(path: Path, workplace: Path, changed: Mapping[str, object]) -> Executed:
    """Runs a notebook from top to bottom with some settings changed, as papermill does.

    A cell with the new values is put behind the settings; no other cell is touched.

    Args:
        path: The notebook.
        workplace: Folder in which it runs.
        changed: Setting -> another value of the same type.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    notebook = read(path)
    before = settings(notebook)
    for name, value in changed.items():
        assert type(before[name]) is type(value), f"{path.name}: {name} is {before[name]!r}"
    source = "\n".join(f"{name} = {value!r}" for name, value in changed.items())
    place = notebook.cells.index(settings_cell(notebook)) + 1
    notebook.cells.insert(place, nbformat.v4.new_code_cell(source, id="injected-parameters"))
    nbclient.NotebookClient(
        notebook, timeout=_TIMEOUT, resources={"metadata": {"path": str(workplace)}}
    ).execute()
    return Executed({cell.id: cell.get("outputs", []) for cell in notebook.cells})
