"""What optimizers keep: the bytes that the low-memory ones are for."""

import functools

import numpy as np
import pytest
from named_weights import NamedWeights

from vit_tf.training import optimizers
from vit_tf.training.optimization import Optimization
from vit_tf.training.run_length import RunLength

SHAPES = {
    "kernel": (64, 48),
    "three/kernel": (40, 2, 33),  # factored over its two longest axes
    "short/kernel": (31, 64),  # too short to be factored
    "bias": (48,),
}
SIZES = {name: int(np.prod(shape)) for name, shape in SHAPES.items()}


def state_bytes(optimizer) -> int:
    model = NamedWeights({name: np.zeros(shape) for name, shape in SHAPES.items()})
    built = Optimization(optimizer).build(model, RunLength(4))
    slots = [variable for variable in built.variables if variable.path != built.iterations.path]
    return sum(np.prod(slot.shape) * (2 if slot.dtype == "bfloat16" else 4) for slot in slots)


FACTORS = (64 + 48) + (40 + 33) * 2 + SIZES["short/kernel"] + SIZES["bias"]


@pytest.mark.parametrize(
    "optimizer, expected",
    [
        (optimizers.MomentumSGD, 2 * sum(SIZES.values())),
        (
            functools.partial(optimizers.MomentumSGD, accumulator_dtype="float32"),
            4 * sum(SIZES.values()),
        ),
        (optimizers.LowMemoryAdam, 6 * sum(SIZES.values())),
        (optimizers.ScalingAdafactor, 2 * sum(SIZES.values()) + 4 * FACTORS),
        (functools.partial(optimizers.ScalingAdafactor, momentum=None), 4 * FACTORS),
        (optimizers.LAMB, 8 * sum(SIZES.values())),
        (optimizers.LARS, 4 * sum(SIZES.values())),
    ],
)
def test_bytes_of_state(optimizer, expected):
    assert state_bytes(optimizer) == expected
