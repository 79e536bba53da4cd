"""Both forms of a layer's products give the same outputs and gradients."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf import layers
from vit_tf.layers.products import rows
from vit_tf.models import create_model, extract_features
from vit_tf.models.lora import LoRA

TINY = {"image_size": (16, 24), "patch_size": 8, "width": 16, "depth": 2, "num_classes": 5}
VIT = TINY | {"num_heads": 2, "mlp_dim": 32}
MODELS = {
    "token": ("vit", VIT),
    "map": ("vit", VIT | {"pool": "map"}),
    "deit3": ("deit3", VIT | {"layer_scale_init": 0.5}),
    "mixer": ("mixer", TINY | {"tokens_mlp_dim": 8, "channels_mlp_dim": 32}),
}


def scrambled(name: str, options: dict) -> keras.Model:
    model = create_model(name, **options)
    draw = np.random.default_rng(0)
    for weight in model.weights:  # heads and biases begin as zeros
        weight.assign(draw.normal(0, 0.3, weight.shape))
    return model


def outputs_and_gradients(model, images, scope) -> list[np.ndarray]:
    @tf.function(autograph=False)
    def run(images):
        with scope(), tf.GradientTape() as tape:
            tape.watch(images)
            logits = model(images, training=True)
            loss = tf.reduce_sum(tf.square(tf.cast(logits, tf.float32)))
        sources = [images, *(weight.value for weight in model.trainable_weights)]
        return [logits, *tape.gradient(loss, sources)]

    return [np.asarray(value, np.float32) for value in run(images)]


@pytest.mark.parametrize("name", MODELS)
def test_products_that_keep_axes_apart_are_those_of_matrices(name):
    model = scrambled(*MODELS[name])
    images = tf.constant(np.random.default_rng(1).uniform(-1, 1, (3, 16, 24, 3)), tf.float32)
    plain = outputs_and_gradients(model, images, contextlib.nullcontext)
    apart = outputs_and_gradients(model, images, layers.compiled_by_xla)
    for ours, reference in zip(apart, plain, strict=True):
        scale = max(1.0, np.abs(reference).max())
        np.testing.assert_allclose(ours / scale, reference / scale, atol=2e-6)


def test_low_rank_adaptations_are_part_of_both_forms():
    model = scrambled(*MODELS["token"])
    LoRA(rank=2).adapt(model)
    for weight in model.trainable_weights:
        weight.assign(np.random.default_rng(3).normal(0, 0.3, weight.shape))
    images = tf.constant(np.random.default_rng(1).uniform(-1, 1, (2, 16, 24, 3)), tf.float32)
    plain = np.asarray(model(images))
    with layers.compiled_by_xla():
        np.testing.assert_allclose(np.asarray(model(images)), plain, rtol=1e-4, atol=1e-4)


def test_no_token_is_folded_into_the_batch_for_xla():
    model = scrambled(*MODELS["token"])

    @tf.function(autograph=False)
    def logits(images):
        with layers.compiled_by_xla():
            return model(images, training=True)

    graph = logits.get_concrete_function(tf.TensorSpec([3, 16, 24, 3])).graph
    folded = 3 * 7  # 6 patches and the class token
    shapes = [tuple(out.shape) for op in graph.get_operations() for out in op.outputs]
    assert not [shape for shape in shapes if shape and shape[0] == folded]


def test_intermediates_are_the_same_in_both_forms():
    model = scrambled(*MODELS["token"])
    images = np.random.default_rng(2).uniform(-1, 1, (2, 16, 24, 3)).astype("float32")

    def weights():
        found = extract_features(model, images, "block01/attn_weights")
        return np.asarray(found["block01/attn_weights"])

    plain = weights()
    with layers.compiled_by_xla():
        np.testing.assert_allclose(weights(), plain, atol=1e-6)


@pytest.mark.parametrize("for_tpu", [False, True])
def test_products_keep_axes_apart_for_a_tpu_alone(for_tpu):
    # Compiled for a CPU, products of more axes made a small model's step ten times as slow.
    with layers.compiled_by_xla(for_tpu=for_tpu):
        assert rows(np.zeros((2, 3, 4))).ndim == (3 if for_tpu else 2)
