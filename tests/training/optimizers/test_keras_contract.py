"""What every optimizer of ours owes Keras and the checkpoints of a run."""

import functools

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf
from named_weights import NamedWeights, Steps

from vit_tf.training import configuration, optimizers
from vit_tf.training.optimization import Optimization
from vit_tf.training.run_length import RunLength
from vit_tf.training.state import optimizer_state

NAMES = optimizers.__all__
LENGTH = RunLength(steps=6)


def numbers(seed) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = {"body/kernel": (40, 36), "body/bias": (36,), "head/kernel": (36, 3)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def steps_of(name) -> Steps:
    optimizer = functools.partial(getattr(optimizers, name), weight_decay=0.1)
    return Steps(Optimization(optimizer, 0.05), numbers(0), LENGTH)


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_optimizer_goes_on_to_the_bit(name, tmp_path):
    whole = steps_of(name)
    for seed in (1, 2, 3):
        whole.step(numbers(seed))
    path = tf.train.Checkpoint(optimizer=optimizer_state(whole.optimizer)).write(
        str(tmp_path / "c")
    )
    expected = whole.step(numbers(4))

    resumed = steps_of(name)
    state = tf.train.Checkpoint(optimizer=optimizer_state(resumed.optimizer))
    state.read(path).assert_consumed()
    # The weights themselves are another part of a run's checkpoint.
    fresh = steps_of(name)
    for seed in (1, 2, 3):
        values = fresh.step(numbers(seed))
    for weight_name, weight in resumed.weights.items():
        weight.assign(values[weight_name])
    found = resumed.step(numbers(4))
    for weight_name, value in expected.items():
        np.testing.assert_array_equal(found[weight_name], value)
    if name in ("LowMemoryAdam", "MomentumSGD", "ScalingAdafactor"):
        assert any(slot.dtype == "bfloat16" for slot in resumed.optimizer.variables)


@pytest.mark.parametrize("name", NAMES)
def test_a_keras_model_is_compiled_with_it_and_learns(name):
    settings = {"LARS": {"learning_rate": 0.005, "eta": 1.0}, "LAMB": {"learning_rate": 0.1}}
    optimizer = getattr(optimizers, name)(**settings.get(name, {"learning_rate": 0.02}))
    rng = np.random.default_rng(0)
    images = rng.normal(size=(64, 8)).astype(np.float32)
    labels = images @ rng.normal(size=(8, 2))
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(2)])
    model.compile(optimizer, "mse", jit_compile=False)
    losses = model.fit(images, labels, batch_size=64, epochs=40, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_kept_and_made_again_as_keras_does(name):
    made = getattr(optimizers, name)(0.5, weight_decay=0.25)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(made))
    assert type(again) is type(made) and again.get_config() == made.get_config()


@pytest.mark.parametrize("name", NAMES)
def test_a_bfloat16_weight_is_updated_in_float32(name):
    values = {name: value.astype(np.float32) for name, value in numbers(0).items()}
    half, full = NamedWeights(values, "bfloat16"), NamedWeights(values)
    for model in (half, full):
        optimization = Optimization(getattr(optimizers, name), 0.05, clip_norm=None)
        optimization.build(model, LENGTH)
        gradients = [tf.cast(numbers(1)[n], model.weights[0].dtype) for n in values]
        optimization.apply(gradients, model.weights)
    for weight_name, value in full.values().items():
        np.testing.assert_allclose(half.values()[weight_name], value, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_gin_knows_it_and_misspelt_arguments_are_errors(name):
    configuration.parse([], [f"Optimization.optimizer = @{name}", f"{name}.weight_decay = 0.125"])
    made = configuration.bound("Optimization")()
    assert made.build(NamedWeights(numbers(0)), LENGTH).weight_decay == 0.125
    configuration.parse([], [f"{name}.weight_decy = 1.0"])
    with pytest.raises(ValueError, match="weight_decy"):
        configuration.bound(name)()
    gin.clear_config()
