"""TensorFlow functions as XLA programs, on any machine."""

import pytest
import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.compiler.xla import xla_data_pb2
from tensorflow.compiler.xla.service import hlo_pb2

from vit_tf.compilation import lower


def test_variables_are_arguments_of_the_program():
    weight = tf.Variable(tf.ones([3, 4]))

    def step(images):
        weight.assign_add(tf.matmul(images, images, transpose_a=True)[:3])

    program = lower(step, tf.TensorSpec([2, 4]))
    assert program.name == "step"
    assert program.argument_bytes == 4 * (2 * 4 + 3 * 4)
    assert b"step" in program.hlo  # which the compiler's messages call it by


def test_arguments_may_be_nested():
    def step(batch, scale):
        return batch["image"] * scale + batch["label"]

    specs = {"image": tf.TensorSpec([2]), "label": tf.TensorSpec([2])}, tf.TensorSpec([])
    assert lower(step, *specs, name="nested").argument_bytes == 4 * 5


def test_computations_that_are_equal_are_there_once():
    def step(images):
        sums = [tf.reduce_sum(images * n) for n in range(1, 9)]
        largest = [tf.reduce_max(images * n) for n in range(1, 9)]
        return sums, largest

    module = hlo_pb2.HloModuleProto.FromString(lower(step, tf.TensorSpec([2, 4])).hlo)
    assert len(module.computations) == 3  # addition, maximum, and the step itself
    known = {computation.id for computation in module.computations}
    called = [
        number
        for computation in module.computations
        for instruction in computation.instructions
        for number in instruction.called_computation_ids
    ]
    assert len(called) == 16 and set(called) < known


def test_an_op_that_xla_lacks_is_named():
    def step(images):
        return tf.strings.as_string(images * 2.0, name="spelt")

    with pytest.raises(
        ValueError, match=r"cannot compile step: it has no kernel of AsString \(.*s"
    ):
        lower(step, tf.TensorSpec([2]))


def test_a_shape_that_is_not_whole_is_refused():
    with pytest.raises(ValueError, match=r"whole shapes; images has the shape \(None, 4\)"):
        lower(tf.identity, tf.TensorSpec([None, 4], name="images"))


def test_a_function_that_is_compiled_in_parts_lowers_too():
    part = tf.function(lambda x: x + 1.0, jit_compile=True)
    assert lower(lambda x: part(x) * 2.0, tf.TensorSpec([2])).hlo


def generators(function):
    """Algorithms by which a lowered function draws random numbers."""
    module = hlo_pb2.HloModuleProto.FromString(lower(function, tf.TensorSpec([8, 128])).hlo)
    instructions = [i for computation in module.computations for i in computation.instructions]
    return [i.rng_algorithm for i in instructions if i.opcode == "rng-bit-generator"]


def test_random_numbers_come_from_the_hardwares_own_generator():
    def dropped(images):
        return tf.nn.experimental.stateless_dropout(images, 0.1, seed=[1, 2])

    assert generators(dropped) == [xla_data_pb2.RNG_DEFAULT]


def test_a_generator_whose_new_state_is_used_stays_philox():
    def drawn(images):
        state = tf.constant([1, 2, 3], tf.uint64)
        philox = {"algorithm": tf.random.Algorithm.PHILOX.value, "dtype": tf.uint32}
        state, _ = gen_xla_ops.xla_rng_bit_generator(initial_state=state, shape=[8], **philox)
        _, bits = gen_xla_ops.xla_rng_bit_generator(initial_state=state, shape=[8, 128], **philox)
        return images + tf.cast(bits, tf.float32)

    assert sorted(generators(drawn)) == [xla_data_pb2.RNG_DEFAULT, xla_data_pb2.RNG_PHILOX]
