"""Files of the repository that are pages of the site too, each in one place alone."""

import re
from pathlib import Path

# Page of the site -> file of the repository.
_PAGES = {
    "benchmarks.md": "benchmarks/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
# How files name each other in the repository -> how pages do on the site.
_LINKS = {
    "../benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
    "docs/scaling.md": "scaling.md",
    "results/train_step.json": "benchmarks/train_step.json",
}
_TARGET = re.compile(r"(?<=\]\()([^)#\s]+)(?=[)#])")
_PICTURES = "benchmarks/results"


def pages(root: Path) -> dict[str, str]:
    """Path in the site -> Markdown, of the files that the repository keeps elsewhere."""
    return {page: (root / file).read_text(encoding="utf-8") for page, file in _PAGES.items()}


def pictures(root: Path) -> dict[str, Path]:
    """Path in the site -> file, of what the benchmarks' page shows and links to."""
    text = (root / _PAGES["benchmarks.md"]).read_text(encoding="utf-8")
    return {
        target.replace("results/", "benchmarks/"): root / "benchmarks" / target
        for target in _TARGET.findall(text)
        if target.startswith("results/")
    }


def linked(markdown: str) -> str:
    """Markdown whose links to files of the repository are links to pages of the site."""

    def page(match: re.Match) -> str:
        target = match[1]
        return _LINKS.get(target, re.sub(r"^results/", "benchmarks/", target))

    return _TARGET.sub(page, markdown)
