"""The table of pictures: every entry draws, names its models, and says what it cannot show."""

import dataclasses
import re

import keras
import numpy as np
import pytest

from vit_tf.analysis.attention_distance import attention_distance, model_attention_distance
from vit_tf.analysis.attention_maps import attention_maps
from vit_tf.analysis.attention_overlay import attention_overlay
from vit_tf.analysis.model_pictures import PICTURES, Subject, choose_pictures, draw_pictures
from vit_tf.models import create_model

TINY = {"image_size": 16, "num_classes": 3}
VIT = {**TINY, "patch_size": 4, "width": 8, "depth": 3, "num_heads": 2, "mlp_dim": 8}


def subject(name, model, images=3, shown=2):
    rng = np.random.default_rng(0)
    seen = rng.integers(0, 256, (images, 16, 16, 3), np.uint8)
    values = (seen / 127.5 - 1).astype(np.float32)
    return Subject(name, model, values, seen, [f"image {n}" for n in range(images)], shown)


@pytest.fixture(scope="module")
def vit():
    keras.utils.set_random_seed(0)
    return subject("a vit", create_model("vit", **VIT), images=16)


@pytest.fixture(scope="module")
def pooled():
    keras.utils.set_random_seed(1)
    model = create_model("vit", **(VIT | {"depth": 2}), pool="map", num_registers=1)
    return subject("a pooled vit", model, images=16)


@pytest.fixture(scope="module")
def pruned():
    keras.utils.set_random_seed(2)
    model = create_model("dynamic_vit", **VIT, pruning_blocks=(1, 2), keep_ratios=(0.5, 0.25))
    return subject("a pruned vit", model, images=16)


@pytest.fixture(scope="module")
def mixer():
    sizes = {"patch_size": 8, "width": 8, "depth": 1, "tokens_mlp_dim": 4, "channels_mlp_dim": 4}
    return subject("a mixer", create_model("mixer", **TINY, **sizes))


def drawn(name, *subjects):
    (found,) = draw_pictures(subjects, [name])
    return found


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_draws_one_model_and_several_and_teaches(name, vit, pooled, pruned):
    picture = PICTURES[name]
    if picture.lacks(vit.model):  # it is of other models
        vit, pooled = (dataclasses.replace(pruned, name=s.name) for s in (vit, pooled))
    assert re.fullmatch(r"[a-z_]+", name)  # names become files and links
    assert picture.title and len(picture.text) > 100
    assert list(drawn(name, vit).figures) == [""]
    found = drawn(name, vit, pooled)
    first, *others = found.figures
    assert [first, *others[:1]] in ([""], ["a vit", "a pooled vit"]) and not found.notes
    assert all(figure.axes for figure in found.figures.values())


def test_what_a_model_lacks_is_said_and_the_others_are_drawn(vit, mixer):
    found = drawn("attention_rollout", mixer, vit)
    assert found.notes == ["Left out: a mixer has no attention between tokens."]
    assert list(found.figures) == [""]
    assert drawn("position_similarity", mixer).notes == [
        "Left out: a mixer has no position embedding."
    ]
    assert not drawn("attention_distance", mixer).figures
    assert not drawn("patch_filters", mixer).notes


def test_distances_are_means_over_all_images_and_not_over_those_shown(vit):
    (figure,) = drawn("attention_distance", vit).figures.values()
    points = figure.axes[0].collections[0].get_offsets()[:, 1].reshape(3, 2)
    expected = model_attention_distance(vit.model, vit.images)
    np.testing.assert_allclose(points, expected, rtol=1e-5)
    shown = model_attention_distance(vit.model, vit.images[:2])
    assert np.abs(expected - shown).max() > 1e-4


def test_the_dashed_line_is_attention_to_all_tokens_alike(vit, pooled):
    (figure,) = drawn("attention_distance", vit, pooled).figures.values()
    _, first, _, second = (line.get_ydata()[0] for line in figure.axes[0].lines)
    for found, others in ((first, 1), (second, 1)):  # a class token, a register
        even = np.full((1, 1, 1, 16 + others, 16 + others), 1 / (16 + others))
        assert found == pytest.approx(attention_distance(even, (4, 4), 4).item())


def test_rollouts_of_models_stand_beside_the_image_and_pools_beside_them(vit, pooled):
    (figure,) = drawn("attention_rollout", vit, pooled).figures.values()
    assert [axes.get_title() for axes in figure.axes[:4]] == [
        "", "a vit", "a pooled vit", "a pooled vit: pool"]  # fmt: skip
    shown = np.array([axes.images[0].get_array() for axes in figure.axes])
    second = shown.reshape(2, 4, 16, 16, 3)[1]
    np.testing.assert_array_equal(second[0], vit.seen[1])
    maps = attention_maps(pooled.model, pooled.images[:2], ["rollout", "pool"])
    for panel, attention in zip(second[2:], (maps["rollout"], maps["pool"].mean(1)), strict=True):
        np.testing.assert_array_equal(panel, attention_overlay(pooled.seen[1], attention[1]))


@pytest.mark.parametrize("name", [n for n in PICTURES if n.startswith("attention")])
def test_attention_of_a_model_that_drops_patches_is_drawn(name, pruned):
    (figure,) = drawn(name, pruned).figures.values()
    assert figure.axes


def test_heads_are_of_the_first_image_with_the_pools_at_the_end(pooled):
    (figure,) = drawn("attention_heads", pooled).figures.values()
    assert [axes.get_title() for axes in figure.axes[:3]] == ["layer 0", "layer 1", "pool"]
    heads = attention_maps(pooled.model, pooled.images[:1], ["heads"])["heads"][0]
    panels = np.array([axes.images[0].get_array() for axes in figure.axes]).reshape(2, 3, -1)
    expected = attention_overlay(pooled.seen[0], heads[1, 0])  # layer 1, head 0
    np.testing.assert_array_equal(panels[0, 1], expected.ravel())


def test_of_deep_models_evenly_spread_layers_are_drawn():
    model = create_model("vit", **(VIT | {"depth": 24}))
    (figure,) = drawn("attention_layers", subject("deep", model, 1, 1)).figures.values()
    layers = [int(axes.get_title().split()[1]) for axes in figure.axes[1:]]
    assert len(layers) == 12 and layers[0] == 0 and layers[-1] == 23
    assert set(np.diff(layers)) <= {2, 3}


def test_attention_is_computed_once_for_all_pictures(vit):
    batches = []

    def progress(firsts):
        batches.extend(firsts)
        return iter(firsts)

    watched = dataclasses.replace(vit, progress=progress, batch_size=1)
    names = ["attention_rollout", "attention_layers", "attention_heads"]
    assert len(list(draw_pictures([watched], names))) == 3
    assert batches == [0, 1]


def test_without_images_pictures_of_weights_remain():
    assert choose_pictures([], 0) == ["patch_filters", "position_similarity"]
    usual = [name for name in PICTURES if name != "kept_patches"]
    assert choose_pictures([], 64) == usual
    few = [name for name in usual if name not in ("layer_similarity", "token_localisation")]
    assert choose_pictures([], 1) == few
    chosen = choose_pictures(["attention_heads", "patch_filters", "attention_heads"], 1)
    assert chosen == ["attention_heads", "patch_filters"]
    with pytest.raises(ValueError, match="picture attention_heads is of images; name files"):
        choose_pictures(["attention_heads"], 0)
    with pytest.raises(ValueError, match="token_localisation needs 64 images; there are 63"):
        choose_pictures(["token_localisation"], 63)
    with pytest.raises(
        ValueError, match="'patch_filter' is unknown.* Did you mean 'patch_filters'"
    ):
        choose_pictures(["patch_filter"], 1)


def test_what_few_models_have_is_drawn_where_one_has_it(vit, pruned):
    assert "kept_patches" not in choose_pictures([], 64, [vit.model])
    assert choose_pictures([], 64, [vit.model, pruned.model]) == list(PICTURES)
    assert choose_pictures(["kept_patches"], 1, [vit.model]) == ["kept_patches"]


def test_facts_are_the_models(vit, mixer):
    assert vit.facts() == {
        "model": "a vit",
        "parameters": f"{vit.model.count_params():,}",
        "input": "16 x 16",
        "patches": "4 x 4",
        "layers": "3",
        "heads": "2",
    }
    assert mixer.facts()["heads"] == "-" and mixer.facts()["patches"] == "2 x 2"
