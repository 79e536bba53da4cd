"""bfloat16 computes, float32 decides: softmax, norms, logits, losses and all state."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from processes import rows

from vit_tf.models import create_model
from vit_tf.training import Classification, Ema

TINY = dict(
    name="vit", image_size=8, patch_size=4, width=32, depth=1, num_heads=2, mlp_dim=32, pool="gap"
)


@pytest.fixture
def half_model():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        yield create_model(**TINY, num_classes=10)
    finally:
        keras.config.set_dtype_policy(before)


def operations(model, kind):
    """Dtypes of all operations of a kind in the forward pass."""
    graph = tf.function(model).get_concrete_function(tf.zeros([2, 8, 8, 3])).graph
    return [op.inputs[0].dtype for op in graph.get_operations() if op.type == kind]


def test_the_softmax_of_attention_is_float32_and_products_are_bfloat16(half_model):
    assert set(operations(half_model, "Softmax")) == {tf.float32}
    products = operations(half_model, "BatchMatMulV2") + operations(half_model, "MatMul")
    assert tf.bfloat16 in products


def test_norms_compute_in_float32(half_model):
    roots = operations(half_model, "Rsqrt")
    assert roots and set(roots) == {tf.float32}


def test_logits_and_loss_are_float32(half_model):
    images = tf.zeros([2, 8, 8, 3])
    batch = {"image": images, "label": tf.constant([0, 1])}
    values = Classification(lambda: half_model).train_values(half_model, batch)
    assert values["loss"].dtype == tf.float32
    assert half_model(images).dtype == "float32"


def test_weights_moments_and_averages_are_float32(make_estimator, train_input, tmp_path):
    run = tmp_path / "run"
    settings = dict(steps=1, precision="mixed_bfloat16", ema=Ema(), model={"depth": 1})
    make_estimator(run, **settings).train(train_input)
    reader = tf.train.load_checkpoint(str(run / "checkpoints"))
    dtypes = reader.get_variable_to_dtype_map()
    kept = ("model/", "optimizer/", "ema/")
    state = {dtypes[name] for name in dtypes if name.startswith(kept) and dtypes[name].is_floating}
    assert state == {tf.float32}


def test_a_run_in_bfloat16_stays_close_to_one_in_float32(make_estimator, train_input, tmp_path):
    losses = {}
    for precision in ("float32", "mixed_bfloat16"):
        run = tmp_path / precision
        settings = dict(steps=60, steps_per_loop=10, checkpoint_interval=60, model={"depth": 1})
        make_estimator(run, precision=precision, **settings).train(train_input)
        losses[precision] = np.array([row["loss"] for row in rows(run)])
    assert losses["float32"][-1] < 0.9 * losses["float32"][0]
    np.testing.assert_allclose(losses["mixed_bfloat16"], losses["float32"], rtol=0.005)


def test_a_head_bias_makes_the_first_sigmoid_loss_small():
    # Zhai et al. 2021 and big_vision start sigmoid heads at -10: each wrong class then costs
    # log(1 + exp(-10)), the right one log(1 + exp(10)).
    model = create_model(**TINY, num_classes=10, head_bias_init=-10.0)
    batch = {"image": tf.zeros([2, 8, 8, 3]), "label": tf.constant([0, 1])}
    loss = Classification(lambda: model, loss="sigmoid").train_values(model, batch)["loss"]
    expected = 9 * math.log1p(math.exp(-10)) + math.log1p(math.exp(10))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
