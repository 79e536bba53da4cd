"""A page of pictures that needs no other file."""

import base64
import html.parser
import io

import numpy as np
from PIL import Image

from vit_tf.analysis.picture_page import Section, picture_page


class Seen(html.parser.HTMLParser):
    """What a browser would find: images by their description, texts, links and anchors."""

    def __init__(self, page):
        super().__init__()
        self.images, self.texts, self.links, self.anchors = {}, [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "img":
            self.images[found["alt"]] = found["src"]
        self.links += [found["href"]] if "href" in found else []
        self.anchors += [found["id"]] if "id" in found else []

    def handle_data(self, data):
        self.texts.append(data.strip())


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pixels_of(source):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))


CHART = np.zeros((8, 8, 3), np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
SMOOTH = np.asarray(Image.fromarray(NOISE[:6, :8]).resize((400, 300), Image.BICUBIC))


def test_a_page_holds_pictures_texts_and_links_to_them():
    sections = [
        Section("one", "First", "A sentence.\n\nAnother.", {"": png(CHART)}, ["A note."]),
        Section("two", "Second", "More.", {"a": png(CHART), "b": png(CHART)}),
    ]
    facts = [{"model": "a", "layers": "12"}, {"model": "b", "layers": "24"}]
    seen = Seen(picture_page("A title", facts, sections, "python tool.py"))
    assert list(seen.images) == ["First", "Second a", "Second b"]
    np.testing.assert_array_equal(pixels_of(seen.images["Second b"]), CHART)
    assert seen.links == ["#one", "#two"] and seen.anchors == ["one", "two"]
    for text in ("A title", "A sentence.", "Another.", "A note.", "python tool.py", "layers", "24"):
        assert text in seen.texts
    assert all(source.startswith("data:image/") for source in seen.images.values())


def test_what_is_written_is_shown_and_not_obeyed():
    name = "<script>alert('&')</script>"
    section = Section("one", name, name, {name: png(CHART)}, [name])
    page = picture_page(name, [{name: name}], [section], name)
    assert "<script" not in page
    assert Seen(page).texts.count(name) == 10


def test_photographs_go_into_the_page_smaller_and_charts_as_they_are():
    noisy = np.clip(SMOOTH.astype(int) + NOISE // 16, 0, 255).astype(np.uint8)
    assert len(png(noisy)) > 200_000 > len(png(CHART))
    section = Section("one", "Photograph", "", {"": png(noisy)})
    page = picture_page("", [], [section])
    shown = pixels_of(Seen(page).images["Photograph"])
    assert len(page) < len(png(noisy)) / 3
    assert shown.shape == noisy.shape and np.abs(shown.astype(int) - noisy).mean() < 8
