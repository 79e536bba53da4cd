"""Notebooks are stored clean, begin alike, and name nothing that is not there."""

import ast
import importlib.util
import re
from unittest import mock

import command_lines
import gin
import nbformat
import pytest
import stored_notebooks as notebooks

from vit_tf.checkpoints.public.catalogue import find
from vit_tf.models import resolve_name

# A form field of Colab stands behind each setting.
_FIELD = re.compile(r'^\w+ = .+  # @param \{type: "(string|integer|number|boolean|raw)"\}$')
_KINDS = {"string": str, "integer": int, "number": float, "boolean": bool, "raw": (list, tuple)}
_CELLS = range(8, 21)


@pytest.fixture(params=notebooks.PATHS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return notebooks.read(path)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_notebooks_are_numbered_without_a_gap():
    numbers = [path.name.partition("_")[0] for path in notebooks.PATHS]
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]


def test_the_stored_form_is_valid_and_holds_no_outputs(notebook):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(notebook))


def test_cells_have_names_of_their_own_as_ids(notebook):
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert [name for name in ids if not re.fullmatch(r"[a-z]+(-[a-z]+)*", name)] == []


def test_it_begins_with_its_number_and_ends_with_what_to_try(path, notebook):
    number = path.name.partition("_")[0]
    assert notebook.cells[0].source.startswith(f"# {number}. ")
    assert notebook.cells[-1].source.startswith("## Try next\n")
    assert len(notebook.cells) in _CELLS


def test_all_begin_with_the_same_installation(notebook):
    (first, *_) = (code_cells(notebooks.read(path))[0] for path in notebooks.PATHS)
    assert code_cells(notebook)[0].source == first.source
    assert 'REPOSITORY = "' in first.source


@pytest.mark.parametrize("address", ["", "https://example.org/vit_tf.git"])
def test_where_the_project_is_missing_it_is_fetched(address, monkeypatch):
    """On Colab; the shell and its magics are recorded here, and nothing is run."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    shell = mock.Mock()
    cell = code_cells(notebooks.read(notebooks.PATHS[0]))[0]
    cell.source = cell.source.replace('REPOSITORY = ""', f"REPOSITORY = {address!r}")
    namespace = {"get_ipython": lambda: shell}
    if not address:
        with pytest.raises(AssertionError, match="REPOSITORY is the address"):
            exec(notebooks.transformed(cell), namespace)
        assert not shell.mock_calls
        return
    exec(notebooks.transformed(cell), namespace)
    assert [call[0] for call in shell.mock_calls] == ["system", *["run_line_magic"] * 2]
    assert shell.system.call_args.args[0].endswith("{REPOSITORY} vit_tf_project")
    assert shell.run_line_magic.call_args_list[0].args == ("cd", "vit_tf_project")


def test_settings_are_fields_of_their_type(notebook):
    values = notebooks.settings(notebook)
    lines = notebooks.settings_cell(notebook).source.splitlines()
    assert len(lines) == len(values)
    for line, (name, value) in zip(lines, values.items(), strict=True):
        kind = _FIELD.match(line)
        assert kind, line
        assert name.isupper() and isinstance(value, _KINDS[kind[1]]), line


def test_settings_are_set_in_one_place(notebook):
    names = notebooks.settings(notebook)
    tree = ast.parse(notebooks.python(notebook))
    stored = [
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    ]
    assert {name: stored.count(name) for name in names} == dict.fromkeys(names, 1)


def test_every_setting_is_used(notebook):
    settings = notebooks.settings_cell(notebook)
    others = "\n".join(cell.source for cell in code_cells(notebook) if cell is not settings)
    unused = [n for n in notebooks.settings(notebook) if not re.search(rf"\b{n}\b", others)]
    assert unused == []


def test_public_weights_of_the_settings_are_in_the_catalogue(notebook):
    values = notebooks.settings(notebook)
    for name, model in values.items():
        tag = values.get(name.replace("MODEL", "WEIGHTS"))
        if "MODEL" in name and tag:
            assert find(resolve_name(model), tag).url


def test_names_that_are_imported_from_the_project_exist(notebook):
    seen = 0
    for node in ast.walk(ast.parse(notebooks.python(notebook))):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("vit_tf"):
            module = importlib.import_module(node.module)
            assert [a.name for a in node.names if not hasattr(module, a.name)] == [], node.module
            seen += 1
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "vit_tf":
            assert hasattr(importlib.import_module("vit_tf"), node.attr)
            seen += 1
    assert seen


def test_commands_that_are_shown_can_be_given(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in command_lines.shown(notebooks.text(notebook)):
        try:
            command_lines.check_call(*call)
        finally:
            gin.clear_config()


def test_other_notebooks_that_are_named_exist(notebook):
    numbers = {int(n) for n in re.findall(r"[Nn]otebook (\d+)", notebooks.text(notebook))}
    assert numbers <= set(range(1, len(notebooks.PATHS) + 1))


def test_no_cell_needs_an_account(notebook):
    source = notebooks.text(notebook)
    assert not re.search(r"google\.colab|kaggle|\blogin\b|api_key|token=", source, re.IGNORECASE)


def test_each_is_executed_by_a_test(path):
    tests = (notebooks.ROOT / "tests" / "colabs" / "test_notebooks_run.py").read_text("utf-8")
    assert path.name.partition("_")[0] in re.findall(r"= run\(\s*(\d+)", tests)


def test_the_readme_lists_each_notebook(path):
    readme = (notebooks.ROOT / "README.md").read_text(encoding="utf-8")
    assert f"colabs/{path.name}" in readme
