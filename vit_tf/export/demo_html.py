"""The demo page's own pieces of HTML: bars, neighbours, facts, messages."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

from PIL import Image, ImageOps

from vit_tf.export.image_gallery import Neighbour
from vit_tf.export.predictors.base import Prediction

_THUMBNAIL = 192  # pixels, twice what is shown, for dense screens

CSS = """
.gradio-container { max-width: 1080px !important; margin: 0 auto !important; }
.vt-head h1 { font-size: 1.7rem; font-weight: 650; letter-spacing: -0.02em;
  margin: 0.4rem 0 0.1rem; }
.vt-head p { opacity: 0.68; margin: 0; overflow-wrap: anywhere; }
.vt-title { font-weight: 600; margin: 0 0 0.6rem; }
#looked .vt-title { margin: 0; }
#image img, #overlay img { width: 100%; height: 100%; object-fit: contain; }
#strength .tab-like-container { display: none; }
.vt-quiet { opacity: 0.68; margin: 0; }
.vt-bar { margin-bottom: 0.6rem; }
.vt-bar div { display: flex; justify-content: space-between; gap: 1rem; line-height: 1.45; }
.vt-bar b { font-weight: 500; overflow-wrap: anywhere; }
.vt-bar:first-of-type b, .vt-bar:first-of-type span { font-weight: 650; }
.vt-bar span { font-variant-numeric: tabular-nums; white-space: nowrap; }
.vt-bar i { display: block; height: 8px; border-radius: 4px; overflow: hidden;
  background: var(--border-color-primary); }
.vt-bar u { display: block; height: 100%; border-radius: 4px; background: var(--color-accent); }
.vt-error { border-left: 4px solid #cf222e; padding: 0.5rem 0.9rem; }
.vt-error p { margin: 0; overflow-wrap: anywhere; }
.vt-near { display: grid; gap: 0.7rem;
  grid-template-columns: repeat(auto-fit, minmax(92px, 1fr)); }
.vt-near figure { margin: 0; max-width: 160px; }
.vt-near img { width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 8px;
  display: block; }
.vt-near figcaption { font-size: 0.85rem; line-height: 1.3; margin-top: 0.3rem;
  overflow-wrap: anywhere; }
.vt-near small { opacity: 0.68; font-variant-numeric: tabular-nums; }
.vt-facts { width: 100%; border-collapse: collapse; border: 0 !important; }
.vt-facts tr { border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important; }
.vt-facts tr:last-child { border-bottom: 0 !important; }
.vt-facts td { padding: 0.4rem 1rem 0.4rem 0 !important; vertical-align: top;
  border: 0 !important;
  overflow-wrap: anywhere; }
.vt-facts td:first-child { opacity: 0.68; white-space: nowrap; width: 1%; }
"""


def heading(name: str, description: str) -> str:
    """What the page is."""
    return (
        f'<div class="vt-head"><h1>{html.escape(name)}</h1><p>{html.escape(description)}</p></div>'
    )


def bars(prediction: Prediction) -> str:
    """The classes of an image as bars, or why there are none."""
    if prediction.error:
        return message(f"This image could not be classified: {prediction.error}.")
    rows = zip(prediction.names, prediction.probabilities, strict=True)
    drawn = "".join(
        f'<div class="vt-bar" data-probability="{value!r}"><div><b>{html.escape(name)}</b>'
        f"<span>{100 * value:.1f} %</span></div>"
        f'<i><u style="width: {100 * value:.2f}%"></u></i></div>'
        for name, value in rows
    )
    return title("What it is") + drawn


def message(text: str) -> str:
    """A sentence about what went wrong."""
    return f'<div class="vt-error" role="alert"><p>{html.escape(text)}</p></div>'


def title(text: str) -> str:
    """What stands over a part of the page."""
    return f'<p class="vt-title">{html.escape(text)}</p>'


def hint(text: str) -> str:
    """A sentence where there is nothing to show yet."""
    return f'<p class="vt-quiet">{html.escape(text)}</p>'


def neighbours(found: Sequence[Neighbour]) -> str:
    """Thumbnails with class and similarity."""
    figures = "".join(
        f'<figure><img alt="{html.escape(near.label)}" src="{_thumbnail(near)}">'
        f"<figcaption>{html.escape(near.label)}<br><small>{near.similarity:.3f}</small>"
        "</figcaption></figure>"
        for near in found
    )
    return f'{title("Most similar images of the gallery")}<div class="vt-near">{figures}</div>'


def facts(lines: Mapping[str, str]) -> str:
    """A table of what the model card says."""
    rows = "".join(
        f"<tr><td>{html.escape(key)}</td><td>{html.escape(value)}</td></tr>"
        for key, value in lines.items()
    )
    return f'<table class="vt-facts">{rows}</table>'


def _thumbnail(near: Neighbour) -> str:
    with Image.open(near.file) as image:
        small = ImageOps.fit(ImageOps.exif_transpose(image).convert("RGB"), (_THUMBNAIL,) * 2)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
