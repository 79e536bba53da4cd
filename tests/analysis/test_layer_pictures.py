"""Pictures of layers on the page: which models and images each is made of."""

import keras
import numpy as np
import pytest

from vit_tf.analysis.layer_similarity import ModelLayers, layer_similarity
from vit_tf.analysis.model_pictures import PICTURES, Subject, draw_pictures
from vit_tf.models import create_model


def subject(name, model, images=37, **options):
    height, width = model.image_size
    seen = np.random.default_rng(0).integers(0, 256, (images, height, width, 3), np.uint8)
    return Subject(name, model, (seen / 127.5 - 1).astype(np.float32), seen, **options)


@pytest.fixture(scope="module")
def vit():
    keras.utils.set_random_seed(0)
    return create_model(
        "vit", image_size=16, patch_size=8, width=8, depth=9, num_heads=2, mlp_dim=8
    )


@pytest.fixture(scope="module")
def bit():
    return create_model("bit", image_size=32, resnet_stages=(1, 1), resnet_width_factor=0.5)


def drawn(name, *subjects):
    (found,) = draw_pictures(subjects, [name])
    return found


def matrix(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


def test_layers_of_the_first_model_stand_beside_those_of_each_other(vit, bit):
    figures = drawn("layer_similarity", subject("a", vit), subject("b", bit)).figures
    assert list(figures) == ["a", "b", "a and b"]
    assert [matrix(figure).shape for figure in figures.values()] == [(10, 10), (3, 3), (10, 3)]
    axes = figures["a and b"].axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("a", "b")


def test_layers_are_compared_on_all_images_none_of_them_in_a_small_batch(vit):
    batches = []

    def progress(numbers):
        batches.extend(numbers)
        return iter(numbers)

    of_vit = subject("a", vit, progress=progress)
    (figure,) = drawn("layer_similarity", of_vit).figures.values()
    expected = layer_similarity([of_vit.images[:19], of_vit.images[19:]], ModelLayers(vit)).cka
    np.testing.assert_allclose(matrix(figure), expected, atol=1e-6)
    assert batches == [0, 1]


def test_fields_of_all_models_are_on_one_figure_of_evenly_spread_layers(vit, bit):
    fields = drawn("receptive_fields", subject("a", vit, 2), subject("b", bit, 2)).figures[""]
    titles = [axes.get_title().partition("\n")[0] for axes in fields.axes if axes.images]
    assert len(titles) == 7 + 3
    assert (titles[0], titles[6], titles[7]) == ("tokens", "block08/out", "root/pool")


def test_places_are_those_of_tokens_and_not_of_convolutions_before_them():
    stem = {"resnet_stages": (1,), "resnet_width_factor": 0.5, "patch_size": 2}
    config = {"image_size": 16, "width": 8, "depth": 1, "num_heads": 1, "mlp_dim": 8}
    figure = drawn("token_localisation", subject("a", create_model("hybrid", **stem, **config)))
    rows = [axes.get_ylabel().partition("\n")[0] for axes in figure.figures[""].axes[::5]]
    assert rows == ["tokens", "block00/out"]


@pytest.mark.parametrize("name", ["skip_ratio", "token_localisation"])
def test_a_model_without_tokens_is_left_out(name, vit, bit):
    found = drawn(name, subject("a", vit), subject("b", bit))
    assert found.notes == ["Left out: b has no tokens."]
    assert list(found.figures) == [""]


def test_pictures_whose_images_are_compared_need_several():
    needed = {name: picture.needs_images for name, picture in PICTURES.items()}
    assert needed["layer_similarity"] == 16 and needed["token_localisation"] == 64
    assert needed["receptive_fields"] == needed["skip_ratio"] == 1
