"""A configuration's programs for a TPU slice: what they hold, and what they do not need."""

import resource

import gin
import keras
import pytest
import tensorflow as tf

import vit_tf.training.run  # noqa: F401  whose arguments gin files bind
from vit_tf.compilation import parse_topology
from vit_tf.training import configuration
from vit_tf.training.slice_strategy import SliceStrategy
from vit_tf.training.strategies import is_tpu
from vit_tf.training.tpu_programs import configured_programs
from vit_tf.training.unset_weights import unset_weights

TINY = (
    "create_model.width = 16",
    "create_model.depth = 1",
    "create_model.num_heads = 2",
    "create_model.mlp_dim = 32",
)
RECIPE = "gin/recipes/augreg_i1k_s16.gin"


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


def programs(*bindings, topology="v5e:2x2", recipe=RECIPE):
    configuration.parse([recipe], [*TINY, *bindings])
    return configured_programs(parse_topology(topology))


def test_the_slice_divides_the_batch_and_sums_over_its_devices():
    made = programs("train/Input.batch_size = 16").lower("train")
    assert (made.batch, made.replicas) == (4, 4)
    assert b"all-reduce" in made.program.hlo
    assert "mixed_bfloat16" in made.model


def test_nothing_is_compiled_within_what_a_tpu_compiles():
    """An explicit mark fails on TPUs (keras-team/keras #19448, tensorflow/tensorflow #58934)."""
    made = programs("RunConfig.jit_compile = True")
    marked = []
    original = tf.Graph._create_op_internal

    def watched(graph, op_type, *args, **kwargs):
        operation = original(graph, op_type, *args, **kwargs)
        if "_XlaMustCompile" in operation.node_def.attr and operation.get_attr("_XlaMustCompile"):
            marked.append(operation.name)
        return operation

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.Graph, "_create_op_internal", watched)
        for kind in ("train", "eval", "predict"):
            made.lower(kind, 2)
        assert not marked
        inner = tf.function(lambda x: x + 1, jit_compile=True)
        tf.function(lambda x: inner(x)).get_concrete_function(tf.TensorSpec([2]))
        assert marked  # the watch sees such marks


@pytest.mark.parametrize("kind", ["eval", "predict"])
def test_other_programs_see_the_evaluations_images(kind):
    made = programs().lower(kind, 2)
    assert (made.kind, made.batch) == (kind, 2)
    assert made.program.argument_bytes > 2 * 224 * 224 * 3 * 4


def test_averages_and_moments_are_arguments_of_the_step():
    made = programs(topology="v5e:1x1").lower("train", 2)
    assert made.repeated is None and b"all-reduce" not in made.program.hlo
    plain = made.program.argument_bytes
    averaged = programs("RunConfig.ema = @Ema()", topology="v5e:1x1").lower("train", 2)
    weights = sum(weight.shape.num_elements() for weight in _model().weights)
    assert averaged.program.argument_bytes - plain == pytest.approx(4 * weights, abs=200)


def test_a_loop_over_micro_batches_comes_with_its_body():
    made = programs("RunConfig.accumulation_steps = 2", topology="v5e:1x1").lower("train", 4)
    assert made.repeats == 2
    assert made.repeated.hlo != made.program.hlo


def test_weights_have_no_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with unset_weights():
        layer = keras.layers.Dense(40_000)
        layer.build([1, 40_000])  # 6.4 GB
    assert layer.kernel.shape == (40_000, 40_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB


def test_small_variables_and_those_made_later_have_values():
    with unset_weights():
        layer = keras.layers.Dense(4, bias_initializer="ones")
        layer.build([1, 4])
    assert layer.bias.numpy().tolist() == [1.0] * 4
    later = keras.Variable(keras.initializers.Ones(), shape=(64, 64))
    assert later.numpy().min() == 1.0


def test_a_slice_stands_for_tpus():
    strategy = SliceStrategy(8)
    assert strategy.num_replicas_in_sync == 8
    assert is_tpu(strategy)


@pytest.mark.parametrize(
    ("bindings", "kind", "message"),
    [
        (["train/Input.batch_size = 6"], "train", "batch of 6 cannot be divided among the 4"),
        ([], "serve", "must be one of train, eval, predict; given 'serve'"),
    ],
)
def test_what_cannot_be_lowered_is_said(bindings, kind, message):
    with pytest.raises(ValueError, match=message):
        programs(*bindings).lower(kind)


def _model():
    return configuration.bound("create_model")()
