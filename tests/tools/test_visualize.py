"""tools/visualize.py: models and images in, a page of pictures out."""

import re
from pathlib import Path

import gin
import keras
import numpy as np
import pytest
import tools_in_process
from PIL import Image

TOOL = Path(__file__).resolve().parents[2] / "tools" / "visualize.py"
TINY = """
run.task = @Classification
Classification.model = @create_model
create_model.name = "vit"
create_model.image_size = 16
create_model.patch_size = 4
create_model.width = 8
create_model.depth = 2
create_model.num_heads = 2
create_model.mlp_dim = 8
create_model.num_classes = 3
"""
MIXER = """
run.task = @Classification
Classification.model = @create_model
create_model.name = "mixer"
create_model.image_size = 16
create_model.patch_size = 8
create_model.width = 8
create_model.depth = 1
create_model.tokens_mlp_dim = 4
create_model.channels_mlp_dim = 4
create_model.num_classes = 3
"""


@pytest.fixture
def tool(capsys):
    """`tool(*arguments)`: the exit status, and what is written to stdout and stderr."""

    def call(*arguments):
        keras.utils.set_random_seed(0)  # fresh weights are the same in every call
        try:
            status = tools_in_process.run(TOOL, [str(argument) for argument in arguments])
        finally:
            gin.clear_config()
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def tiny(tmp_path):
    """The flag that names a tiny ViT with fresh weights."""
    (tmp_path / "tiny.gin").write_text(TINY)
    return f"--gin_file={tmp_path / 'tiny.gin'}"


@pytest.fixture
def photos(tmp_path):
    """Five images of different sizes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        pixels = rng.integers(0, 256, (20 + number, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"photo{number}.png")
    return folder


def test_a_page_and_a_png_for_every_picture(tool, tiny, photos, tmp_path):
    (photos / "broken.png").write_text("no image")
    out = tmp_path / "look"
    status, printed, said = tool(tiny, f"--out={out}", "--show=2", photos, tmp_path / "absent.jpg")
    assert status == 1
    assert f"error: no such file or folder: {tmp_path}/absent.jpg" in said
    assert f"error: {photos}/broken.png: not a JPEG" in said
    assert printed == f"{out}/index.html\n"
    names = ["patch_filters", "position_similarity", "attention_distance", "attention_rollout",
             "attention_layers", "attention_heads", "receptive_fields", "skip_ratio"]  # fmt: skip
    assert "left out, as they need more images: layer_similarity, token_localisation" in said
    assert re.findall(r"^(\w+): [\d.]+ s$", said, re.MULTILINE) == names
    assert {path.name for path in out.iterdir()} == {"index.html", *(f"{n}.png" for n in names)}
    page = (out / "index.html").read_text()
    assert re.findall(r'<section id="(\w+)">', page) == names
    assert page.count('src="data:image/') == len(names)
    # Nothing is fetched from elsewhere, not even from beside the page.
    assert set(re.findall(r'(?:src|href)="(.{4})', page)) == {"data", *(f"#{n[:3]}" for n in names)}
    for name in names:
        assert Image.open(out / f"{name}.png").width > 200
    for fact in ("16 x 16", "4 x 4", "tools/visualize.py"):
        assert fact in page
    rollout = Image.open(out / "attention_rollout.png")
    assert rollout.height < 1.2 * rollout.width  # two images below each other, as --show says


def test_several_models_are_side_by_side(tool, photos, tmp_path):
    out = tmp_path / "look"
    models = ("--model=vit_mu16", "--model=vit_mu16", "--weights=none")
    chosen = "--pictures=attention_rollout,attention_layers"
    status, _, said = tool(*models, chosen, f"--out={out}", "--show=1", photos / "photo0.png")
    assert status == 0, said
    assert {path.name for path in out.iterdir()} == {
        "index.html",
        "attention_rollout.png",
        "attention_layers_vit_mu16_fresh.png",
        "attention_layers_vit_mu16_fresh_2_.png",
    }
    page = (out / "index.html").read_text()
    assert "<h1>Inside vit_mu16 fresh, vit_mu16 fresh (2)</h1>" in page
    assert "<figcaption>vit_mu16 fresh (2)</figcaption>" in page


def test_weights_need_no_images(tool, tiny, tmp_path):
    status, _, said = tool(tiny, f"--out={tmp_path}/look")
    assert status == 0, said
    assert "left out, as no images are named: attention_distance, attention_rollout" in said
    pngs = {path.name for path in (tmp_path / "look").glob("*.png")}
    assert pngs == {"patch_filters.png", "position_similarity.png"}


def test_no_more_images_are_used_than_allowed_and_these_are_spread(tool, tiny, photos, tmp_path):
    chosen = (tiny, "--pictures=attention_distance")
    status, _, said = tool(*chosen, f"--out={tmp_path}/some", "--max_images=2", photos)
    assert status == 0 and "2 of 5 images, evenly spread" in said
    alone = (photos / "photo0.png", photos / "photo2.png")
    assert tool(*chosen, f"--out={tmp_path}/alone", *alone)[0] == 0
    assert tool(*chosen, f"--out={tmp_path}/all", photos)[0] == 0
    some, alone, everything = (
        (tmp_path / name / "attention_distance.png").read_bytes()
        for name in ("some", "alone", "all")
    )
    assert some == alone != everything


def test_a_model_without_what_a_picture_shows_is_said(tool, photos, tmp_path):
    (tmp_path / "mixer.gin").write_text(MIXER)
    arguments = (f"--gin_file={tmp_path}/mixer.gin", f"--out={tmp_path}/look", photos)
    status, _, _ = tool(*arguments)
    assert status == 0
    page = (tmp_path / "look" / "index.html").read_text()
    assert "Left out: model fresh has no position embedding." in page
    drawn = {path.name for path in (tmp_path / "look").glob("*.png")}
    assert drawn == {"patch_filters.png", "receptive_fields.png", "skip_ratio.png"}
    status, _, said = tool(*arguments, "--pictures=attention_rollout")
    assert status == 1
    assert "error: attention_rollout: Left out: model fresh has no attention between" in said


def test_pictures_are_listed(tool, tmp_path):
    status, printed, _ = tool("--pictures=list", f"--out={tmp_path}/look")
    assert status == 0 and not (tmp_path / "look").exists()
    assert "position_similarity    Similarity of position embeddings (of weights)\n" in printed
    assert "attention_rollout      Attention rollout\n" in printed


def test_mistakes_are_one_clear_line(tool, tiny, photos, tmp_path):
    out = f"--out={tmp_path}/look"
    mistakes = {
        (photos,): "name a model: --model=vit_b16 --weights=augreg_in21k",
        ("--model=vit_b61",): "vit_b16",
        (tiny, "--pictures=rollout", photos): "the picture 'rollout' is unknown",
        (tiny, "--pictures=attention_rollout"): "attention_rollout is of images; name files",
        (tiny, tmp_path / "absent"): "no such file or folder",
        (tiny, "--preprocess=decode|resiz(16)", photos): "resize",
    }
    for arguments, expected in mistakes.items():
        status, _, said = tool(out, *arguments)
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert status == 1 and expected in errors[0], said
        assert len(said.splitlines()) <= 4
