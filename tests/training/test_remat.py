"""Rematerialisation changes no gradient, whatever is drawn inside the blocks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from vit_tf.layers import compiled_by_xla
from vit_tf.models import create_model
from vit_tf.training import Classification, RunConfig
from vit_tf.training.gradients import Gradients

DRAWS = dict(dropout=0.3, stochastic_depth=0.3)
SMALL = dict(image_size=16, patch_size=4, width=16, depth=2, num_classes=3)
ENCODER = dict(**SMALL, num_heads=2, mlp_dim=16, pool="gap", **DRAWS)
MODELS = {
    "vit": dict(name="vit", **ENCODER),
    "hybrid": dict(
        name="hybrid", **{**ENCODER, "patch_size": 1}, resnet_stages=(1,), resnet_width_factor=0.5
    ),
    "mixer": dict(name="mixer", **SMALL, tokens_mlp_dim=8, channels_mlp_dim=16, **DRAWS),
}


def model_of(name, policy="float32"):
    keras.utils.set_random_seed(0)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = create_model(**MODELS[name])
    finally:
        keras.config.set_dtype_policy(before)
    model.head.kernel.assign(np.random.default_rng(1).normal(0, 0.3, model.head.kernel.shape))
    return model


def gradients(model, remat, accumulation_steps=1, **settings):
    generator = np.random.default_rng(0)
    batch = {
        "image": tf.constant(generator.uniform(-1, 1, (4, 16, 16, 3)), tf.float32),
        "label": tf.constant([0, 1, 2, 0]),
        "mask": tf.ones([4]),
    }
    # Tensors, as sharpness-aware minimisation gives them: not what the variables hold.
    weights = [tf.convert_to_tensor(weight) + 0.01 for weight in model.trainable_weights]
    find = Gradients(Classification(lambda: model), model, [], 4, accumulation_steps, remat)

    def both_passes():
        with compiled_by_xla(settings.get("jit_compile", False)):
            return find(batch, weights, [], tf.constant([3, 5]))

    run = tf.function(both_passes, **settings)
    found, _, sums = run()
    return [*(value.numpy() for value in found), sums.numpy()], run


@pytest.mark.parametrize(
    ("name", "policy", "settings"),
    [
        ("vit", "blocks", {}),
        ("vit", "blocks", {"jit_compile": True}),
        ("vit", "attention", {"accumulation_steps": 2}),
        ("vit", "mlp", {}),
        ("hybrid", "blocks", {}),
        ("mixer", "blocks", {}),
    ],
)
def test_gradients_are_those_without(name, policy, settings):
    model = model_of(name)
    expected, _ = gradients(model, "none", **settings)
    found, _ = gradients(model, policy, **settings)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    assert all(np.abs(value).max() > 0 for value in found)


def test_gradients_are_those_without_in_mixed_precision_but_for_rounding():
    # TensorFlow fuses operations of the first computation whose results nothing else needs, and
    # rounds to bfloat16 (8 bits) in other places. Other dropout masks would change more than half.
    model = model_of("vit", "mixed_bfloat16")
    pairs = zip(gradients(model, "blocks")[0], gradients(model, "none")[0], strict=True)
    for one, other in pairs:
        assert np.linalg.norm(one - other) < 0.02 * np.linalg.norm(other)


def test_blocks_are_computed_twice():
    model = model_of("vit")

    def products(remat):
        operations = gradients(model, remat)[1].get_concrete_function().graph.get_operations()
        return sum("MatMul" in operation.type for operation in operations)

    # A block's forward pass has six products: qkv, scores, values, out, and two of the MLP.
    assert products("blocks") - products("none") == 6 * 2


def test_the_compiler_is_kept_from_finding_that_a_block_is_computed_twice():
    # Else it would compute it once and keep its activations. Each block's barrier is one of all.
    _, run = gradients(model_of("vit"), "blocks", jit_compile=True)
    program = run.experimental_get_compiler_ir()(stage="hlo")
    assert program.count(" opt-barrier(") == 2


def test_a_model_without_such_layers_and_a_policy_that_is_none():
    model = model_of("mixer")
    with pytest.raises(ValueError, match="remat = 'attention' finds no MultiHeadSelfAttention"):
        gradients(model, "attention")
    with pytest.raises(ValueError, match="remat must be one of none, blocks, .*; given 'all'"):
        RunConfig(remat="all")
