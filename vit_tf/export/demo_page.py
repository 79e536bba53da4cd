"""A local web page on which a person drops an image and sees what a model makes of it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from vit_tf.analysis.attention_overlay import attention_overlay, enlarged_to_read
from vit_tf.export import demo_html
from vit_tf.export.demo_server import import_gradio
from vit_tf.export.image_gallery import ImageGallery
from vit_tf.export.predictors.base import Predictor, plain_png

_STRENGTH = 0.6
_PRIVATE = {"api_visibility": "private"}
_EXAMPLES = _NEIGHBOURS = 8


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the page shows of an image.

    Args:
      result: HTML, bars or a message.
      seen: the image as the model saw it, uint8 [height, width, 3]; None without attention.
      attention: its map [rows, columns]; None without attention.
      neighbours: HTML; empty without a gallery.
    """

    result: str
    seen: np.ndarray | None = None
    attention: np.ndarray | None = None
    neighbours: str = ""


class Demo:
    """Answers the page, apart from any web server.

    Args:
      predictor: what classifies.
      gallery: images to compare with.

    Attributes:
      without_attention: why there is no attention to show; None if there is.
    """

    def __init__(self, predictor: Predictor, gallery: ImageGallery | None = None):
        self.predictor = predictor
        self.gallery = gallery
        self.without_attention: str | None = None
        blank = plain_png(128)
        predictor.classify([blank])  # traces now, so that the first visitor need not wait
        try:
            predictor.attention([blank])
            predictor.seen([blank])
        except ValueError as error:
            self.without_attention = str(error)

    @property
    def invitation(self) -> str:
        """What a visitor may do."""
        return "Drop an image or paste one" + (", or choose an example." if self.gallery else ".")

    def answer(self, file: str | None) -> Answer:
        """Classifies a file; whatever is wrong with it or with a server is said in the answer."""
        if file is None:
            return Answer(demo_html.hint(self.invitation))
        try:
            return self._answer(Path(file).read_bytes())
        except (ValueError, OSError, RuntimeError) as error:
            logging.error("%s", error)
            return Answer(demo_html.message(str(error)))

    def _answer(self, image: bytes) -> Answer:
        [prediction] = self.predictor.classify([image])
        result = demo_html.bars(prediction)
        if prediction.error:
            return Answer(result)
        seen = attention = None
        if self.without_attention is None:
            [attention] = self.predictor.attention([image])
            [seen] = self.predictor.seen([image])
            seen = enlarged_to_read(seen)
        near = self.gallery.nearest(image, _NEIGHBOURS) if self.gallery else []
        return Answer(result, seen, attention, demo_html.neighbours(near) if near else "")


def overlay(answer: Answer | None, strength: float) -> np.ndarray | None:
    """The attention of an answer over its image, uint8 [height, width, 3]."""
    if answer is None or answer.seen is None or answer.attention is None:
        return None
    return attention_overlay(answer.seen, answer.attention, strength)


def build_page(demo: Demo, title: str) -> Any:
    """The page as `gradio.Blocks`.

    Args:
      demo: what answers.
      title: its heading.

    Raises:
      ImportError: if Gradio is not installed.
    """
    gr = import_gradio()
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.HTML(demo_html.heading(title, demo.predictor.describe()))
        with gr.Row():
            with gr.Column():
                image = _dropzone(gr, demo)
            with gr.Column():
                result = gr.HTML(demo_html.hint(demo.invitation), elem_id="result", padding=True)
                with gr.Column(visible=False, elem_id="looked") as looked:
                    picture, strength = _attention_part(gr)
        near = gr.HTML(visible=False, elem_id="neighbours", padding=True)
        with gr.Accordion("About this model", open=False):
            gr.HTML(demo_html.facts(demo.predictor.facts()))
            if demo.without_attention is not None:
                gr.HTML(demo_html.hint(f"No attention is shown: {demo.without_attention}"))
        answered = gr.State(None)

        def show(file: str | None, strength: float) -> tuple[Any, ...]:
            answer = demo.answer(file)
            return (
                answer,
                answer.result,
                gr.Column(visible=answer.attention is not None),
                overlay(answer, strength),
                gr.HTML(answer.neighbours, visible=bool(answer.neighbours)),
            )

        outputs = [answered, result, looked, picture, near]
        image.change(show, [image, strength], outputs, show_progress="minimal", **_PRIVATE)
        quick = {"show_progress": "hidden", "trigger_mode": "always_last", **_PRIVATE}
        strength.input(overlay, [answered, strength], picture, **quick)
    return page


def _dropzone(gr: Any, demo: Demo) -> Any:
    """Where an image is dropped, and examples."""
    image = gr.Image(label="Image", height=340, buttons=[], elem_id="image")
    # The model gets the file as it was dropped, and says itself if it is no image.
    image.preprocess = lambda payload: payload and payload.path
    if demo.gallery:
        files = [str(file) for file in demo.gallery.examples(_EXAMPLES)]
        # In Gradio's own folder, from which it serves files, so that the gallery needs not be open.
        files = [gr.processing_utils.save_file_to_cache(file, image.GRADIO_CACHE) for file in files]
        examples = gr.Dataset(
            components=["image"],
            samples=[[file] for file in files],
            label="Examples",
            type="index",
            elem_id="examples",
        )
        # As a bare value: `gr.Examples` would make a new component, which decodes files itself.
        examples.click(files.__getitem__, examples, image, show_progress="hidden", **_PRIVATE)
    return image


def _attention_part(gr: Any) -> tuple[Any, Any]:
    """The overlay's picture and the slider of its strength."""
    gr.HTML(demo_html.title("Where it looked"), padding=True)
    picture = gr.Image(
        show_label=False, interactive=False, height=340, buttons=["fullscreen"], elem_id="overlay"
    )
    strength = gr.Slider(
        0, 1, _STRENGTH, step=0.05, label="Image \u2194 attention", buttons=[], elem_id="strength"
    )
    return picture, strength
