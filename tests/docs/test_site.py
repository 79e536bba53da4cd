"""The site builds without a warning, and none of its links is broken."""

import os
import subprocess
import sys
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import pytest

from vit_tf.data.op_registry import get_op, list_ops
from vit_tf.models import list_families, list_models
from vit_tf.training import configuration, run  # noqa: F401  (makes itself known to gin)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

# What Markdown and the theme make.
ELEMENTS = {
    *("a", "article", "b", "blockquote", "body", "br", "button", "circle", "code", "div", "em"),
    *("footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr", "html", "img"),
    *("input", "label", "li", "link", "main", "meta", "nav", "ol", "p", "path", "pre", "script"),
    *("small", "span", "strong", "style", "svg", "table", "tbody", "td", "th", "thead", "title"),
    *("tr", "ul"),
}


class Page(HTMLParser):
    """What a page refers to, what in it can be referred to, and its text.

    Attributes:
        links: Values of `href` and `src`.
        anchors: Values of `id` and `name`.
        text: All text.
        tags: Names of all elements.
    """

    def __init__(self, html: str):
        super().__init__()
        self.links, self.anchors, self.text, self.tags = [], {"", "top"}, "", set()
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("href", "src") and value is not None:
                self.links.append(value)
            elif name in ("id", "name"):
                self.anchors.add(value)

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={folder}"]
    quiet = {"NO_MKDOCS_2_WARNING": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **quiet}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """Path in the site -> page."""
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def target(page, link):
    """The file and the anchor that a link of a page means; None for other sites."""
    parts = urllib.parse.urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    path = urllib.parse.unquote(parts.path)
    file = (page.parent / path).resolve() if path else page
    return file / "index.html" if file.is_dir() else file, urllib.parse.unquote(parts.fragment)


def test_every_link_leads_to_a_file_and_an_anchor(site, pages):
    broken, seen = [], 0
    for page, content in pages.items():
        if page.name == "404.html":  # whose links begin at the site's root
            continue
        for found in filter(None, (target(page, link) for link in content.links)):
            file, anchor = found
            seen += 1
            lacks_anchor = file in pages and anchor not in pages[file].anchors
            if not file.exists() or lacks_anchor:
                broken.append(f"{page.relative_to(site)}: {file.relative_to(site)}#{anchor}")
    assert seen > 1000
    assert not broken, "\n".join(sorted(set(broken)))


def test_nothing_is_loaded_from_elsewhere(pages):
    for page, content in pages.items():
        loaded = [link for link in content.links if link.endswith((".js", ".css", ".woff2"))]
        assert loaded and not [link for link in loaded if "//" in link], page


def test_angle_brackets_of_docstrings_are_no_elements(pages):
    """Names such as <run> in a docstring want backticks or an indented block."""
    found = {tag: page.parent.name for page, content in pages.items() for tag in content.tags}
    assert {tag: found[tag] for tag in set(found) - ELEMENTS} == {}


def is_own(op):
    """Whether an op is the package's; tests register some as well."""
    return get_op(op).factory.__module__.startswith("vit_tf.")


@pytest.mark.parametrize(
    "page, names",
    [
        ("reference/gin", configuration.configurables()),
        ("reference/families", list_families()),
        ("reference/models", list_models()),
        ("reference/ops", [op for op in list_ops() if is_own(op)]),
        ("reference/gin_files", [str(f.relative_to(ROOT)) for f in ROOT.glob("gin/**/*.gin")]),
    ],
)
def test_the_reference_is_complete(site, pages, page, names):
    text = pages[site / page / "index.html"].text
    assert [name for name in names if name not in text] == []


def test_a_parameter_stands_with_its_default(site, pages):
    text = " ".join(pages[site / "reference/gin/index.html"].text.split())
    assert "steps_per_loop None" in text
    assert "label_smoothing 0.0" in text
