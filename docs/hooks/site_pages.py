"""mkdocs hook: adds the pages that are made out of the code and out of files of the repository."""

from pathlib import Path

import api_pages
import code_reference
import gin_reference
import notebook_pages
import repository_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Puts the pages of the API where the navigation names their folder."""
    _expand(config.nav, "reference/api/", list(api_pages.pages()))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages, and the pictures and notebooks that they link to."""
    pages = {
        **api_pages.pages(),
        "notebooks.md": notebook_pages.page(ROOT),
        "reference/families.md": gin_reference.families_page(),
        "reference/gin.md": gin_reference.configurables_page(),
        "reference/gin_files.md": code_reference.gin_files_page(ROOT),
        "reference/models.md": code_reference.models_page(ROOT),
        "reference/ops.md": code_reference.ops_page(),
        **repository_pages.pages(ROOT),
    }
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for path, file in {**repository_pages.pictures(ROOT), **notebook_pages.files(ROOT)}.items():
        files.append(File.generated(config, path, abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, **_) -> str:
    """Turns links to files of the repository into links to the pages that hold them."""
    return repository_pages.linked(markdown)


def _expand(entries: list, folder: str, paths: list[str]) -> None:
    """Replaces the name of a folder by a list of its pages, at any depth."""
    for entry in entries:
        for title, value in entry.items():
            if value == folder:
                entry[title] = [{Path(path).stem: path} for path in paths]
            elif isinstance(value, list):
                _expand(value, folder, paths)
