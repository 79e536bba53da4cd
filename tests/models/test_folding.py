"""Folded batch norms: fewer weights and operations, the same outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf import layers
from vit_tf.models import create_model, fold_batch_norms
from vit_tf.models.base import is_statistic

HEADS = {"num_heads": 2, "num_classes": 5}
VIT_C = {"image_size": (21, 32), "width": 12, "depth": 1, "mlp_dim": 8, **HEADS}
LEVIT = {"image_size": (40, 52), "width": (8, 12), "depth": (1, 2), "key_dim": 3, **HEADS}
CVT = {"image_size": 16, "width": (8, 12), "depth": (1, 2), **HEADS}
CMT = {"image_size": 24, "width": (8, 12), "depth": 1, "stem_width": 4, **HEADS}
CMT |= {"key_value_reduction": (2, 1)}
# Configuration -> family, keywords, number of its batch norms, and of those that cannot be folded.
MODELS = {
    "vit_c": ("vit_c", {**VIT_C, "stem_widths": (4, 6), "patch_size": 4}, 2, 0),
    "levit": ("levit", LEVIT, 4 + 3 * 4 + 3 + 2 + 2, 0),
    "levit without head": ("levit", {**LEVIT, "num_classes": 0}, 4 + 3 * 4 + 3 + 2, 0),
    "cvt": ("cvt", CVT, 3 * 3, 0),
    # Behind an activation and before a convolution that sees zeros: the stem's, and one a block.
    "cmt": ("cmt", CMT, 3 + 1 + 2 * 3 + 1, 3 + 2),
}


def randomized(model):
    """Statistics and gammas far from one, so that a forgotten factor shows."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        value = random.normal(0, 0.3, weight.shape)
        if weight.path.endswith(("gamma", "variance")):
            value = np.exp(value + random.normal(0, 0.5, weight.shape))
        weight.assign(value)
    return model


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def pair(request):
    name, config, *norms = request.param
    model = randomized(create_model(name, **config))
    return model, fold_batch_norms(model), norms


def images(model, batch=3):
    shape = (batch, *model.input_shape[1:])
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def test_outputs_are_the_same_to_rounding(pair):
    model, folded, _ = pair
    expected = np.asarray(model(images(model)))
    np.testing.assert_allclose(folded(images(model)), expected, atol=1e-5 * np.abs(expected).max())


def test_the_model_itself_stays_as_it_was(pair):
    model, _, _ = pair
    before = model.get_weights()
    fold_batch_norms(model)
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    assert not model.norms_folded


def test_no_statistic_and_no_factor_is_left(pair):
    model, folded, norms = pair
    for made, expected in zip((model, folded), norms, strict=True):
        assert sum(weight.path.endswith("moving_mean") for weight in made.weights) == expected
        assert sum(is_statistic(weight) for weight in made.weights) == 2 * expected
    lost = {w.path for w in model.weights} - {w.path for w in folded.weights}
    assert {path.rpartition("/")[2] for path in lost} <= {
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
    }


def test_a_folded_model_is_saved_and_loaded_as_such(pair, tmp_path):
    _, folded, _ = pair
    folded.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images(folded)), folded(images(folded)))
    assert loaded.get_config() == folded.get_config()


def test_only_products_and_their_biases_remain_in_the_graph():
    """Of the 2 norms nothing is left: TensorFlow computes a convolution and its bias in one."""
    name, config, *_ = MODELS["vit_c"]
    model = randomized(create_model(name, **config))
    counts = []
    for made in (model, fold_batch_norms(model)):
        stem = tf.function(lambda x, made=made: made.stem(x, training=False))
        graph = stem.get_concrete_function(tf.TensorSpec((1, *model.input_shape[1:]))).graph
        counts.append([op.type for op in graph.get_operations()])
    unfolded, folded = counts
    assert unfolded.count("Rsqrt") == 2 and folded.count("Rsqrt") == 0
    assert folded.count("BiasAdd") == 3 and "Mul" not in folded


def test_a_model_without_such_norms_is_returned_itself():
    patches = {**VIT_C, "image_size": 16, "patch_size": 8}
    model = create_model("vit", **patches)
    assert fold_batch_norms(model) is model
    folded = fold_batch_norms(create_model("vit_c", **{**VIT_C, "stem_widths": (4, 6)}))
    assert fold_batch_norms(folded) is folded


class TestOneNorm:
    """One norm beside each kind of layer, against the norm's own formula."""

    def norm(self, channels, neighbour, comes_first=False):
        norm = layers.batch_norm()
        (norm.precedes if comes_first else norm.follows)(neighbour)
        norm.build((None, channels))
        return randomized(norm)

    @pytest.mark.parametrize("use_bias", [False, True])
    @pytest.mark.parametrize(
        "layer",
        [
            lambda **kwargs: keras.layers.Dense(4, **kwargs),
            lambda **kwargs: keras.layers.Conv2D(4, 3, strides=2, **kwargs),
            lambda **kwargs: keras.layers.DepthwiseConv2D(3, depth_multiplier=2, **kwargs),
        ],
        ids=["dense", "convolution", "depth-wise convolution"],
    )
    def test_behind_a_layer(self, layer, use_bias):
        layer = layer(use_bias=use_bias)
        inputs = np.random.default_rng(2).normal(size=(2, 5, 6, 2)).astype(np.float32)
        layer.build(inputs.shape)
        randomized(layer)
        norm = self.norm(4, layer)
        expected = norm(layer(inputs))
        norm.fold()
        np.testing.assert_allclose(norm(layer(inputs)), expected, atol=2e-6)
        assert len(norm.weights) == (0 if use_bias else 1)

    @pytest.mark.parametrize("layer", [keras.layers.Dense(3), keras.layers.Conv2D(3, 1)])
    def test_before_a_layer_of_one_place(self, layer):
        inputs = np.random.default_rng(2).normal(size=(5, 2, 3, 4)).astype(np.float32)
        layer.build(inputs.shape)
        randomized(layer)
        norm = self.norm(4, layer, comes_first=True)
        expected = layer(norm(inputs))
        norm.fold()
        np.testing.assert_allclose(layer(norm(inputs)), expected, atol=2e-6)
        assert not norm.weights

    def test_between_two_norms(self):
        layer = keras.layers.Dense(4)
        inputs = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)
        layer.build(inputs.shape)
        before, behind = self.norm(4, layer, comes_first=True), self.norm(4, layer)
        expected = behind(layer(before(inputs)))
        for norm in (behind, before):
            norm.fold()
        np.testing.assert_allclose(behind(layer(before(inputs))), expected, atol=5e-6)

    def test_one_without_a_neighbour_is_left_alone(self):
        assert layers.foldable_norms([layers.batch_norm(), keras.layers.Dense(1)]) == []
