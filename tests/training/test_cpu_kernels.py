"""Kernels for training on CPUs compute what the layers' own formulas do, forward and backward."""

import functools
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from stepping import Regression

from vit_tf import layers
from vit_tf.layers.attention import attention_weights
from vit_tf.layers.kernels import kernels_for, use
from vit_tf.layers.products import linear as linear_of
from vit_tf.layers.products import rows
from vit_tf.training import Optimization, RunConfig
from vit_tf.training.cpu_kernels import CPUKernels, for_step
from vit_tf.training.gradients import Gradients
from vit_tf.training.run_length import RunLength
from vit_tf.training.strategies import create_strategy

LARGE = (2, 512, 256)  # as many elements as it takes


def built(layer, shape):
    layer.build(shape)
    for number, weight in enumerate(layer.weights):
        weight.assign(np.random.default_rng(number).normal(size=weight.shape))
    return layer


def layer_norm(x):
    layer = layers.LayerNorm(epsilon=1e-6, dtype=x.dtype.name)
    return built(layer, x.shape)(x)


def linear(x):
    dense = built(keras.layers.Dense(96, dtype=x.dtype.name), x.shape)
    return linear_of(dense, rows(x))


def patch_embedding(x):
    """Of patches of 4 x 8, where a row and three columns of the image are left over."""
    images = tf.reshape(tf.concat([x, x], 0), [-1])[: 2 * 257 * 251 * 4]
    images = tf.reshape(images, [2, 257, 251, 4])
    layer = layers.PatchEmbedding(24, (4, 8), dtype=x.dtype.name)
    return built(layer, images.shape)(images)


FORMULAS = {
    "linear": linear,
    "patch_embedding": patch_embedding,
    "gelu": layers.get_activation("gelu"),
    "gelu_tanh": layers.get_activation("gelu_tanh"),
    "softmax": attention_weights,
    "layer_norm": layer_norm,
}


def values_and_gradients(formula, dtype, kernels):
    generator = np.random.default_rng(0)
    x = tf.cast(generator.normal(0.3, 2.0, LARGE), dtype)
    with use(kernels), tf.GradientTape() as tape:
        tape.watch(x)
        values = formula(x)
        watched = [x, *tape.watched_variables()]
    upstream = tf.cast(generator.normal(size=values.shape), dtype)
    found = [values, *tape.gradient(values, watched, upstream)]
    assert [value.dtype for value in found[:2]] == [dtype, dtype]
    return [np.asarray(tf.cast(value, tf.float64)) for value in found]


@pytest.mark.parametrize("name", FORMULAS)
def test_kernels_agree_with_the_formulas_in_float32(name):
    ours = values_and_gradients(FORMULAS[name], tf.float32, CPUKernels())
    plain = values_and_gradients(FORMULAS[name], tf.float32, None)
    has_weights = name in ("layer_norm", "linear", "patch_embedding")
    assert len(ours) == len(plain) == (4 if has_weights else 2)
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6 * np.abs(other).max())


@pytest.mark.parametrize("name", FORMULAS)
def test_kernels_are_no_further_from_the_truth_than_the_formulas_in_bfloat16(name):
    ours = values_and_gradients(FORMULAS[name], tf.bfloat16, CPUKernels())
    plain = values_and_gradients(FORMULAS[name], tf.bfloat16, None)
    rounded = values_and_gradients(FORMULAS[name], tf.float32, None)
    for one, other, truth in zip(ours, plain, rounded, strict=True):
        scale = np.abs(truth).mean()
        assert np.abs(one - truth).mean() <= 1.05 * np.abs(other - truth).mean() + 1e-3 * scale
        assert np.abs(one - truth).mean() < 0.01 * scale


def test_kernels_are_taken_for_large_tensors_of_float32_and_bfloat16_alone():
    with use(CPUKernels()):
        assert kernels_for(tf.zeros(LARGE)) and kernels_for(tf.zeros(LARGE, tf.bfloat16))
        assert not kernels_for(tf.zeros(LARGE, tf.float16))
        assert not kernels_for(tf.zeros(LARGE, tf.float64))
        assert not kernels_for(tf.zeros([8, 8]))
        assert not kernels_for(keras.KerasTensor((None, *LARGE)))
    assert not kernels_for(tf.zeros(LARGE)), "outside nothing is in place"


@pytest.mark.parametrize(
    ("devices", "compiled", "used"),
    [
        (["/cpu:0"], False, True),
        (["/job:w/task:0/device:CPU:0", "/job:w/task:0/device:CPU:1"], False, True),
        (["/cpu:0"], True, False),
        (["/job:w/task:0/device:TPU:0"], False, False),
        (["/gpu:0"], False, False),
    ],
)
def test_kernels_are_for_steps_on_cpus_that_are_not_compiled_as_a_whole(devices, compiled, used):
    class Strategy:
        class extended:
            worker_devices = devices

    assert (for_step(Strategy, compiled) is not None) == used


def test_kernels_give_the_same_bits_with_one_thread_as_with_two(tmp_path):
    """What is free to take part in an operation differs from step to step."""
    files = [tmp_path / f"{threads}.npz" for threads in (1, 2)]
    for threads, file in enumerate(files, 1):
        subprocess.run([sys.executable, "-c", OF_THREADS, str(threads), file], check=True)
    one, two = map(np.load, files)
    assert len(one.files) == 36
    assert [name for name in one.files if not np.array_equal(one[name], two[name])] == []


OF_THREADS = """
import sys
import numpy as np, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
from vit_tf.training.cpu_kernels import CPUKernels

def draw(seed, *shape):
    return tf.random.stateless_normal(shape, [seed, 1])

found = {}
for dtype in (tf.float32, tf.bfloat16):
    for tokens, width in ((3152, 384), (4352, 192), (2176, 128)):
        x, bias, kernel = draw(0, tokens, width), draw(1, width), draw(2, width, 96)
        x, bias, kernel = (tf.cast(value, dtype) for value in (x, bias, kernel))

        @tf.function
        def run(x, bias, kernel):
            with tf.GradientTape() as tape:
                tape.watch([x, bias, kernel])
                normal = CPUKernels.layer_norm(x, bias, bias, 1e-6)
                weights = CPUKernels.softmax(CPUKernels.gelu(normal))
                outputs = CPUKernels.linear(weights, kernel, bias[:96])
                loss = tf.reduce_sum(tf.cast(outputs, tf.float32)[:, ::2])
            return [normal, weights, outputs, *tape.gradient(loss, [x, bias, kernel])]

        for number, value in enumerate(run(x, bias, kernel)):
            found[f"{dtype.name} {tokens} {number}"] = np.asarray(tf.cast(value, tf.float32))
np.savez(sys.argv[2], **found)
"""


@pytest.mark.parametrize("make", [keras.optimizers.Adam, keras.optimizers.AdamW])
@pytest.mark.parametrize("decay_scaled_by", ["learning_rate", "schedule"])
def test_large_weights_are_updated_as_adam_does(make, decay_scaled_by):
    def trained(kernels):
        model = keras.Sequential([keras.Input([512]), keras.layers.Dense(512, name="dense")])
        for number, weight in enumerate(model.weights):
            weight.assign(tf.random.stateless_normal(weight.shape, [number, 1]))
        optimization = Optimization(
            functools.partial(make, weight_decay=0.1),
            learning_rate=1e-2,
            decay_scaled_by=decay_scaled_by,
            learning_rate_table=((".*bias", 0.5), (".*", 2.0)),
        )
        optimizer = optimization.build(model, RunLength(3))
        step = tf.function(
            lambda gradients: optimization.apply(gradients, model.trainable_weights, kernels)
        )
        for number in range(3):
            step([tf.random.stateless_normal(w.shape, [number, 2]) for w in model.weights])
        found = [variable.numpy() for variable in [*model.weights, *optimizer.variables]]
        return found, has_compiled(step.get_concrete_function(list(model.weights)))

    (ours, some), (plain, none) = trained(CPUKernels()), trained(None)
    assert (some, none) == (1, 0)  # the kernel; the bias is small
    assert len(ours) == len(plain) == 7  # two weights, their moments, the count of steps
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make", [functools.partial(keras.optimizers.Adam, amsgrad=True), keras.optimizers.Nadam]
)
def test_other_optimizers_update_large_weights_themselves(make):
    weight = tf.Variable(tf.zeros(LARGE))
    assert CPUKernels().updates(keras.optimizers.Adam(), tf.zeros(LARGE), weight)
    assert not CPUKernels().updates(make(), tf.zeros(LARGE), weight)
    assert not CPUKernels().updates(keras.optimizers.Adam(), tf.zeros(LARGE, tf.bfloat16), weight)


def has_compiled(function):
    """How many of the operations of a traced function XLA compiles."""
    calls = ("PartitionedCall", "StatefulPartitionedCall")
    nodes = function.graph.as_graph_def().node
    return sum(node.op in calls and node.attr["_XlaMustCompile"].b for node in nodes)


class Ones(Regression):
    """A tiny encoder whose tensors are large: what remains is the mean of what comes out."""

    def build_model(self):
        inputs = keras.Input([256, 64])
        block = layers.EncoderBlock(2, 128, dropout=0.1, name="block")
        outputs = layers.LayerNorm(name="norm")(block(inputs))
        return keras.Model(inputs, keras.layers.Dense(1, name="head")(outputs)[:, 0])


def gradients_of(kernels, **settings):
    keras.utils.set_random_seed(0)
    task = Ones()
    model = task.build_model()
    compute = Gradients(task, model, [], 16, kernels=kernels, **settings)
    batch = {
        "image": tf.random.stateless_normal([16, 256, 64], [1, 2]),
        "label": tf.range(16, dtype=tf.float32),
        "mask": tf.ones(16),
    }
    weights = [tf.convert_to_tensor(weight) for weight in model.trainable_weights]
    graph = tf.function(lambda: compute(batch, weights, [], tf.constant([3, 4]))[0])
    return [value.numpy() for value in graph()], has_compiled(graph.get_concrete_function())


@pytest.mark.parametrize(
    "settings",
    [
        {"accumulation_steps": 1},
        {"accumulation_steps": 1, "remat": "blocks"},
        {"accumulation_steps": 2},
    ],
    ids=str,
)
def test_a_step_with_kernels_has_the_gradients_of_one_without(settings):
    plain, none = gradients_of(None, **settings)
    ours, some = gradients_of(CPUKernels(), **settings)
    assert none == 0
    # Three norms, an activation and a softmax, forward and backward, less the softmax's forward.
    assert settings["accumulation_steps"] > 1 or some >= 9
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())
    again, _ = gradients_of(CPUKernels(), **settings)
    assert all((one == other).all() for one, other in zip(ours, again, strict=True))


def test_the_step_of_a_run_on_the_cpu_uses_kernels():
    strategy = create_strategy("cpu")
    assert for_step(strategy, RunConfig().jit_compile) is not None
