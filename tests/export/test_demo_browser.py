"""The demo page in a browser without a window."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from vit_tf.data.preprocess import Preprocess
from vit_tf.export.predictors import SavedModelPredictor
from vit_tf.export.serving_module import ServingModule
from vit_tf.models import create_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
COLORS = {"red": (220, 30, 30), "green": (20, 180, 60), "blue": (40, 60, 220)}


def absent(what):
    """Skips, or fails where everything must be tested."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
    try:
        import gradio  # noqa: F401
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        absent(f"{error}: pip install -e '.[demo,dev]'")
    if path is None:
        absent("no Chromium to look at the demo with: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export with attention, photos to drop, and a gallery."""
    folder = tmp_path_factory.mktemp("demo")
    keras.utils.set_random_seed(0)
    model = create_model(
        "vit", image_size=32, patch_size=8, width=16, depth=2, num_heads=2, mlp_dim=32,
        pool="token", num_classes=7,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(weight + rng.normal(0, 0.3, weight.shape))

    def predict(images):
        logits = model(images, training=False)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    ops = Preprocess("decode|resize_small(40)|central_crop(32)|value_range(-1, 1)")
    names = [f"kind {i} & more" for i in range(7)]
    module = ServingModule(model, predict, ops, names, attention=("rollout",))
    tf.saved_model.save(module, str(folder / "export" / "1"), signatures=module.signatures())
    for label, color in COLORS.items():
        (folder / "gallery" / label).mkdir(parents=True)
        for number in range(3):
            pixels = np.clip(np.array(color) + rng.normal(0, 40, [48, 64, 3]), 0, 255)
            file = folder / "gallery" / label / f"{number}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    ramp = np.tile(np.linspace(0, 255, 200, dtype=np.uint8)[None, :, None], (150, 1, 3))
    Image.fromarray(ramp).save(folder / "photo.jpg")
    (folder / "text.jpg").write_text("no image at all")
    return folder


@pytest.fixture(scope="module")
def address(folder, browser):
    """Of tools/demo.py, started as a person does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "tools/demo.py", f"--saved_model={folder}/export", f"--port={port}",
        f"--gallery={folder}/gallery", "--title=Tiny kinds",
    ]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("Tiny kinds: http"), line
            yield re.search(r"http\S+", line)[0]
        finally:
            process.terminate()


@pytest.fixture
def page(browser, address):
    """The page at a desk's size; nothing may be asked of another machine."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.wait_for_selector("#image")
    yield page
    page.close()
    elsewhere = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert elsewhere == []


def drop(page, file):
    page.set_input_files("#image input[type=file]", str(file))


def drop_again(page, file):
    page.locator("#image button[aria-label='Remove Image']").click()
    page.wait_for_selector("text=choose an example")
    drop(page, file)


def overlay_pixels(page, tmp_path):
    picture = page.locator("#overlay img")
    picture.wait_for()
    picture.screenshot(path=tmp_path / "overlay.png")
    return np.asarray(Image.open(tmp_path / "overlay.png").convert("RGB"), np.float32)


def test_a_dropped_photo_gets_the_predictors_numbers_attention_and_neighbours(
    page, folder, tmp_path
):
    assert "Tiny kinds" in page.inner_text("h1")
    drop(page, folder / "photo.jpg")
    page.wait_for_selector(".vt-bar")
    shown = page.eval_on_selector_all(".vt-bar", "bars => bars.map(b => b.dataset.probability)")
    names = page.eval_on_selector_all(".vt-bar b", "names => names.map(n => n.textContent)")
    predictor = SavedModelPredictor(str(folder / "export"))
    [expected] = predictor.classify([(folder / "photo.jpg").read_bytes()])
    assert len(shown) == 5 and tuple(names) == expected.names
    np.testing.assert_allclose([float(value) for value in shown], expected.probabilities, atol=1e-6)
    assert page.locator("#neighbours figure").count() == 8
    blended = overlay_pixels(page, tmp_path)
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert np.ptp(blended, axis=2).max() > 50  # colours over a photo that has none
    page.locator("#strength input[type=range]").focus()
    page.keyboard.press("Home")  # the image alone
    deadline = time.monotonic() + 20
    while np.ptp(overlay_pixels(page, tmp_path)[20:-20, 20:-20], axis=2).max() > 20:
        assert time.monotonic() < deadline, "the slider does not change the overlay"
        time.sleep(0.2)


def test_a_text_file_named_jpg_is_said_to_be_no_image(page, folder):
    drop(page, folder / "photo.jpg")
    page.wait_for_selector(".vt-bar")
    drop_again(page, folder / "text.jpg")
    said = page.locator("[role=alert]")
    said.wait_for()
    assert "could not be classified: not a" in said.inner_text()
    assert page.locator(".vt-bar").count() == 0
    assert not page.locator("#overlay img").is_visible()
    assert not page.locator("#neighbours figure").first.is_visible()


def test_an_example_is_classified_and_on_a_phone_nothing_is_cut_off(page, folder, tmp_path):
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("#examples .gallery-item").first.click()
    page.wait_for_selector(".vt-bar")
    page.locator("#overlay img").wait_for()
    page.screenshot(path=tmp_path / "phone.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    drop_again(page, folder / "text.jpg")
    page.locator("[role=alert]").wait_for()


def test_what_keeps_the_demo_from_starting_is_one_clear_line(folder, browser):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        for arguments, message in (
            ([f"--saved_model={folder}/export", f"--port={taken}"], f"127.0.0.1:{taken}"),
            ([f"--saved_model={folder}/nothing", "--port=7899"], "is no SavedModel"),
        ):
            done = subprocess.run(
                [sys.executable, "tools/demo.py", *arguments],
                cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 1
            assert f"{message}" in done.stderr and "Traceback" not in done.stderr
