"""Parameters after steps of the reference implementations, bfloat16 roundings included."""

import functools
import json

import numpy as np
import pytest
from named_weights import Steps

from vit_tf.training import schedules
from vit_tf.training.optimization import Optimization
from vit_tf.training.optimizers import LowMemoryAdam, MomentumSGD, ScalingAdafactor
from vit_tf.training.run_length import RunLength

COSINE = functools.partial(schedules.cosine, warmup=2)
BIG_VISION = functools.partial(Optimization, decay_scaled_by="schedule")

CASES = {
    "adafactor_bf16": BIG_VISION(
        functools.partial(ScalingAdafactor, weight_decay=0.003), 0.01, COSINE
    ),
    "adafactor_f32_no_momentum": BIG_VISION(
        functools.partial(ScalingAdafactor, momentum=None, beta_2_cap=0.95),
        0.01,
        functools.partial(schedules.rsqrt, timescale=4, warmup=1, cooldown=3),
        clip_norm=None,
    ),
    "adafactor_f32_momentum": BIG_VISION(
        functools.partial(
            ScalingAdafactor, momentum_dtype="float32", clip_threshold=1.0, weight_decay=0.003
        ),
        0.01,
        COSINE,
    ),
    "adam_bf16": BIG_VISION(functools.partial(LowMemoryAdam, weight_decay=1e-4), 0.001, COSINE),
    "adam_b2_095_f32": BIG_VISION(
        functools.partial(LowMemoryAdam, beta_2=0.95, moment_dtype="float32", weight_decay=1e-4),
        0.001,
        COSINE,
        weight_decay_table=(("head/kernel", 10.0), (".*/kernel", 1.0), (".*", 0.0)),
        learning_rate_table=(("head/.*", 5.0), (".*", 1.0)),
    ),
    "momentum_bf16_clip": BIG_VISION(MomentumSGD, 0.03, COSINE),
    "momentum_f32_nesterov": BIG_VISION(
        functools.partial(
            MomentumSGD, accumulator_dtype="float32", nesterov=True, weight_decay=0.001
        ),
        0.03,
        functools.partial(schedules.linear, warmup=1),
    ),
    "frozen_body": BIG_VISION(
        functools.partial(MomentumSGD, accumulator_dtype="float32", weight_decay=0.001),
        0.03,
        schedules.cosine,
        clip_norm=0.2,
        trainable_table=(("head/.*", True), (".*", False)),
    ),
    "fine_tune_sgd_bf16": BIG_VISION(MomentumSGD, 0.03, COSINE),
}
HALF_PRECISION = ("adafactor_bf16", "adam_bf16", "momentum_bf16_clip", "fine_tune_sgd_bf16")
# One of each optimizer, to spare the others the compiling.
COMPILED = ("adafactor_bf16", "adam_bf16", "momentum_bf16_clip", "frozen_body")


@pytest.fixture(scope="module")
def stored(shared):
    folder = shared / "golden" / "behaviour" / "optimizers"
    meta = json.loads((folder / "meta.json").read_text())
    assert set(CASES) == {*meta["config"]["optimizers"], "fine_tune_sgd_bf16"}
    assert meta["tolerance"]["float32 states"] == {"rtol": 1e-5, "atol": 1e-6}
    assert "0.002 * largest change" in meta["tolerance"]["bfloat16 states"]["strict"]
    return dict(np.load(folder / "io.npz"))


def part(stored, prefix) -> dict[str, np.ndarray]:
    return {key[len(prefix) :]: stored[key] for key in sorted(stored) if key.startswith(prefix)}


@pytest.mark.parametrize(
    "case, mode",
    [
        *((case, "eager") for case in CASES),
        *((case, mode) for case in COMPILED for mode in ("xla", "mirrored")),
    ],
)
def test_parameters_after_one_two_and_five_steps(stored, case, mode):
    start = part(stored, "params0/")
    length = RunLength(steps=10, batch_size=16, examples_per_epoch=320)
    steps = Steps(CASES[case], start, length, mode)
    for number in range(5):
        found = steps.step(part(stored, f"grads{number}/"))
        if number + 1 not in (1, 2, 5):
            continue
        expected = part(stored, f"{case}/after{number + 1}/")
        assert set(found) == set(expected) and len(found) == 11
        for name, value in expected.items():
            if case in HALF_PRECISION:
                allowed = 0.002 * np.abs(value - start[name]).max()
                assert np.abs(found[name] - value).max() <= allowed, name
            else:
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    if case == "frozen_body":
        assert len(steps.optimizer.variables) == 1 + 2  # the count and two accumulators
