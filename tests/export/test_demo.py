"""The demo's answers, without a web server."""

import io
import socket
import sys

import numpy as np
import pytest
from PIL import Image

from vit_tf.export import demo_html
from vit_tf.export.demo_page import Demo, overlay
from vit_tf.export.demo_server import check_port, import_gradio
from vit_tf.export.image_gallery import ImageGallery, Neighbour
from vit_tf.export.predictors import Prediction, Predictor


def png(color):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(file, "PNG")
    return file.getvalue()


class Colors(Predictor):
    """Classes are red and blue, features are an image's mean colour."""

    def __init__(self, signatures=("serving_default", "embed", "attention", "preprocess")):
        self.signatures = signatures
        self.away = False

    def outputs(self, signature, images):
        if self.away:
            raise ConnectionError("no answer from colors for 10 s")
        if signature not in self.signatures:
            raise ValueError(f"colors have no signature {signature!r}")
        views, errors = [], []
        for image in images:
            is_png = image.startswith(b"\x89PNG")
            errors.append(b"" if is_png else b"not an image")
            read = Image.open(io.BytesIO(image if is_png else png("black"))).convert("RGB")
            views.append(np.asarray(read.resize((8, 8))))
        pixels = np.float32(views)
        color = pixels.mean(axis=(1, 2))
        top = np.tile(np.array([b"<red>", b"blue"], object), (len(images), 1))
        return {
            "error": np.array(errors, object),
            "top_ids": np.tile([0, 1], (len(images), 1)),
            "top_names": top,
            "top_probabilities": np.tile(np.float32([0.875, 0.125]), (len(images), 1)),
            "pre_logits": color,
            "rollout": pixels[:, ::4, ::4, 0],
            "images": pixels,
        }

    def describe(self):
        return "colors"


@pytest.fixture
def folder(tmp_path):
    """A gallery of two classes, with a file that is no image and one outside of the classes."""
    for label, color in {"reds": "red", "blues": "blue"}.items():
        (tmp_path / "gallery" / label).mkdir(parents=True)
        (tmp_path / "gallery" / label / "1.png").write_bytes(png(color))
        (tmp_path / "gallery" / label / "2.png").write_bytes(png("purple"))
    (tmp_path / "gallery" / "reds" / "0.jpg").write_text("text")
    (tmp_path / "gallery" / "loose.png").write_bytes(png("red"))
    return tmp_path / "gallery"


@pytest.fixture
def file(tmp_path):
    (tmp_path / "photo.png").write_bytes(png((200, 10, 10)))
    return str(tmp_path / "photo.png")


def test_the_gallery_finds_the_most_similar_images(folder):
    gallery = ImageGallery(Colors(), str(folder))
    first, second, *_ = gallery.nearest(png((200, 10, 10)), count=3)
    assert (first.file, first.label) == (folder / "reds" / "1.png", "reds")
    cosine = np.dot([200, 10, 10], [1, 0, 0]) / np.linalg.norm([200, 10, 10])
    assert first.similarity == pytest.approx(cosine)
    assert second.file.name == "2.png"
    assert gallery.nearest(b"text") == []


def test_the_gallery_names_what_it_left_out_and_gives_examples_of_every_class(folder):
    gallery = ImageGallery(Colors(), str(folder))
    assert gallery.labels == ["blues", "blues", "reds", "reds"]
    assert gallery.problems == [f"{folder}/reds/0.jpg is no image that can be read"]
    assert gallery.examples(3) == [folder / n for n in ("blues/1.png", "reds/1.png", "blues/2.png")]


def test_a_gallery_without_classes_is_explained(tmp_path):
    (tmp_path / "loose.png").write_bytes(png("red"))
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(
            ValueError, match=f"no image to compare with in {folder}: .*/rose/1.jpg"
        ):
            ImageGallery(Colors(), str(folder))


def test_an_image_gets_bars_attention_and_neighbours(folder, file):
    demo = Demo(Colors(), ImageGallery(Colors(), str(folder)))
    answer = demo.answer(file)
    assert "&lt;red&gt;" in answer.result and "87.5 %" in answer.result
    assert 'data-probability="0.125"' in answer.result
    assert answer.neighbours.count("<figure>") == 4
    assert answer.attention.shape == (2, 2)
    np.testing.assert_array_equal(overlay(answer, 0), answer.seen)
    assert (overlay(answer, 1) != answer.seen).any()


def test_a_file_that_is_no_image_is_said_and_nothing_else_is_shown(tmp_path):
    (tmp_path / "x.jpg").write_text("text")
    answer = Demo(Colors()).answer(str(tmp_path / "x.jpg"))
    assert 'role="alert"' in answer.result
    assert "could not be classified: not an image." in answer.result
    assert answer.seen is None and answer.neighbours == "" and overlay(answer, 0.5) is None


def test_without_an_image_the_page_invites(folder):
    assert "Drop an image or paste one." in Demo(Colors()).answer(None).result
    gallery = ImageGallery(Colors(), str(folder))
    assert "choose an example" in Demo(Colors(), gallery).answer(None).result
    assert overlay(None, 0.5) is None


@pytest.mark.parametrize("missing", ["attention", "preprocess"])
def test_a_model_without_attention_says_why_and_classifies(file, missing):
    signatures = {"serving_default", "attention", "preprocess"} - {missing}
    demo = Demo(Colors(signatures))
    assert demo.without_attention == f"colors have no signature {missing!r}"
    answer = demo.answer(file)
    assert "87.5 %" in answer.result and answer.seen is None


def test_a_server_that_goes_away_is_said_on_the_page(file):
    predictor = Colors()
    demo = Demo(predictor)
    predictor.away = True
    assert "no answer from colors for 10 s" in demo.answer(file).result
    predictor.away = False
    assert "87.5 %" in demo.answer(file).result


def test_names_from_outside_cannot_become_html(folder):
    evil = "<script>x</script>"
    near = Neighbour(folder / "reds" / "1.png", evil, 0.5)
    pieces = [
        demo_html.bars(Prediction((0,), (evil,), (0.5,))),
        demo_html.bars(Prediction(error=evil)),
        demo_html.neighbours([near]),
        demo_html.facts({evil: evil}),
        demo_html.heading(evil, evil),
    ]
    assert not any("<script>" in piece for piece in pieces)


def test_a_port_that_is_taken_is_named():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen at 127.0.0.1:{port}: .* another --port"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[demo\]'"):
        import_gradio()
