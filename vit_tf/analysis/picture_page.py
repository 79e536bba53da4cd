"""One self-contained page of pictures, each with what it shows and how to read it."""

import base64
import dataclasses
import html
import io
from collections.abc import Mapping, Sequence

from PIL import Image

_LARGEST_PNG = 200_000  # bytes; what is larger is photographic and goes into the page as WebP
_QUALITY = 88  # of WebP: a tenth of the bytes, and no difference to the eye

_CSS = """
:root { color-scheme: light dark; --quiet: #6b7280; --line: #8883; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 1080px; margin: 2.5rem auto;
  padding: 0 1.25rem; }
h1 { font-size: 1.9rem; letter-spacing: -0.02em; margin-bottom: 0.6rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 0.3rem; letter-spacing: -0.01em; }
p { max-width: 46rem; margin: 0.4rem 0 0.9rem; }
nav { display: flex; flex-wrap: wrap; gap: 0.3rem 1.2rem; margin: 1.2rem 0; }
a { color: #0969da; text-decoration: none; }
a:hover { text-decoration: underline; }
table { border-collapse: collapse; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.3rem 1.4rem 0.3rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
th { color: var(--quiet); font-weight: 500; }
figure { margin: 0 0 1.4rem; }
figure img { display: block; max-width: 100%; height: auto; background: white;
  border: 1px solid var(--line); border-radius: 8px; }
figcaption { font-size: 0.9rem; color: var(--quiet); margin-bottom: 0.3rem; }
.note { color: var(--quiet); font-size: 0.92rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.85rem; color: var(--quiet);
  border-top: 1px solid var(--line); margin-top: 3rem; padding-top: 1rem; }
"""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page.

    Args:
      name: by which links reach it.
      title: above it.
      text: what the pictures show and how they are read; blank lines part paragraphs.
      pictures: PNGs by caption; a caption may be empty.
      notes: sentences below the pictures.
    """

    name: str
    title: str
    text: str
    pictures: Mapping[str, bytes]
    notes: Sequence[str] = ()


def picture_page(
    title: str,
    facts: Sequence[Mapping[str, str]],
    sections: Sequence[Section],
    command: str = "",
) -> str:
    """A page that needs no other file: the pictures are in it.

    Args:
      title: of the page.
      facts: rows of the table at its top, of the same keys; none: no table.
      sections: the page's parts.
      command: what made it, shown at its end.

    Returns:
      HTML.
    """
    links = "".join(f'<a href="#{s.name}">{html.escape(s.title)}</a>' for s in sections)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_CSS}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        _table(facts),
        f"<nav>{links}</nav>",
        *map(_section, sections),
        f"<pre>{html.escape(command)}</pre>" if command else "",
        "</body></html>",
    ]
    return "\n".join(filter(None, parts)) + "\n"


def _table(facts: Sequence[Mapping[str, str]]) -> str:
    if not facts:
        return ""
    head = "".join(f"<th>{html.escape(key)}</th>" for key in facts[0])
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(value)}</td>" for value in row.values()) + "</tr>"
        for row in facts
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def _section(section: Section) -> str:
    pictures = "".join(_figure(section, *pair) for pair in section.pictures.items())
    paragraphs = "".join(f"<p>{html.escape(text)}</p>" for text in section.text.split("\n\n"))
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in section.notes)
    title = html.escape(section.title)
    return f'<section id="{section.name}"><h2>{title}</h2>{pictures}{paragraphs}{notes}</section>'


def _figure(section: Section, caption: str, png: bytes) -> str:
    said = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    alt = html.escape(f"{section.title} {caption}".strip())
    return f'<figure>{said}<img alt="{alt}" src="{_embedded(png)}"></figure>'


def _embedded(png: bytes) -> str:
    kind, content = "png", png
    if len(png) > _LARGEST_PNG:
        file = io.BytesIO()
        Image.open(io.BytesIO(png)).convert("RGB").save(file, "WEBP", quality=_QUALITY)
        kind, content = "webp", file.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
