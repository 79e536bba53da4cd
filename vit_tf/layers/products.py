"""Products of activations with kernels, in the form that suits who computes them.

On CPUs TensorFlow runs a product of two matrices together with the bias and the GELU behind it, and
XLA has fast products there of matrices alone. A TPU suffers from that form: its memory holds the
last two axes in tiles of 8 x 128, so that folding 197 tokens into the batch copies the whole
tensor. There products keep the axes of batch, tokens and heads apart, and the compiler chooses how
each lies in memory.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import keras
from keras import ops

from vit_tf.layers.kernels import kernels_for

_in_xla = contextvars.ContextVar("_in_xla", default=(False, False))


@contextlib.contextmanager
def compiled_by_xla(is_so: bool = True, for_tpu: bool = True) -> Iterator[None]:
    """Inside, layers compute in the form that suits XLA, or if it is not so, in TensorFlow's.

    It surrounds what is traced, to be compiled later, by XLA for a TPU or for another device.
    """
    before = _in_xla.set((is_so, for_tpu))
    try:
        yield
    finally:
        _in_xla.reset(before)


def is_compiled_by_xla() -> bool:
    """Whether what is computed now is traced for XLA: inside of `compiled_by_xla`."""
    return _in_xla.get()[0]


def compiler_scatters() -> bool:
    """Whether gradients may be scattered into windows, which XLA does in one order on TPUs alone.

    Without XLA TensorFlow's own operations do it.
    """
    is_so, for_tpu = _in_xla.get()
    return for_tpu or not is_so


def keeps_axes() -> bool:
    """Whether products are to keep the axes of their operands apart.

    So it is where XLA compiles for a TPU, and on Keras' other backends.
    """
    return all(_in_xla.get()) or keras.backend.backend() != "tensorflow"


def rows(inputs):
    """[..., features] as the operand of `linear`: a matrix, unless products keep the axes apart."""
    return inputs if keeps_axes() else ops.reshape(inputs, (-1, inputs.shape[-1]))


def linear(dense: keras.layers.Dense, inputs):
    """Applies a dense layer without activation to what `rows` made."""
    if not keeps_axes():
        kernels = kernels_for(inputs)
        if kernels is None or dense.bias is None:
            return dense(inputs)
        weights = (ops.cast(weight, inputs.dtype) for weight in (dense.kernel, dense.bias))
        return kernels.linear(inputs, *weights)
    # An ellipsis keeps Keras from turning the sum into a product of matrices.
    outputs = ops.einsum("...i,io->...o", inputs, dense.kernel)
    return outputs if dense.bias is None else outputs + dense.bias
