"""LAMB and LARS against their definitions in NumPy, through `Optimization` and without it."""

import functools

import keras
import numpy as np
import pytest
from named_weights import MODES, NamedWeights, Steps

from vit_tf.training.optimization import Optimization
from vit_tf.training.optimizers import LAMB, LARS
from vit_tf.training.run_length import RunLength
from vit_tf.training.schedules import linear

SHAPES = {
    "body/kernel": (5, 4),
    "body/bias": (4,),
    "norm/gamma": (4,),
    "zeros/kernel": (4, 4),  # a weight of norm 0 is not adapted
    "head/kernel": (4, 3),
    "head/bias": (3,),
}
# Factors of decay and rate, per weight, as the tables below say them.
DECAY = dict.fromkeys(SHAPES, 0.0) | {"body/kernel": 1.0, "zeros/kernel": 1.0, "head/kernel": 3.0}
RATE = dict.fromkeys(SHAPES, 1.0) | {"head/kernel": 2.0, "head/bias": 2.0}
TABLES = dict(
    weight_decay_table=(("head/kernel", 3.0), (".*/kernel", 1.0), (".*", 0.0)),
    learning_rate_table=(("head/.*", 2.0), (".*", 1.0)),
)
NUM_STEPS, PEAK = 4, 0.01


def numbers(seed, scale=1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: (scale * rng.normal(size=s)).astype(np.float32) for name, s in SHAPES.items()}


START = numbers(0) | {"zeros/kernel": np.zeros((4, 4), np.float32)}
# Of global norms 7 and 0.07: the first is clipped where the global norm is bounded by 1.
GRADIENTS = [numbers(step + 1, scale) for step, scale in enumerate((1.0, 0.01, 1.0, 0.01))]


def norm(value) -> float:
    return float(np.sqrt((np.asarray(value, np.float64) ** 2).sum()))


def ratio(weight, update) -> float:
    return norm(weight) / norm(update) if norm(weight) > 0 and norm(update) > 0 else 1.0


def lamb(weight_decay, always_adapt=False, clip=1.0) -> dict[str, np.ndarray]:
    """You et al. 2020, algorithm 2, with apex' clipping and exclusion; float64."""
    weights = {name: value.astype(np.float64) for name, value in START.items()}
    first, second = dict.fromkeys(SHAPES, 0.0), dict.fromkeys(SHAPES, 0.0)
    for step, gradients in enumerate(GRADIENTS):
        rate = PEAK * (1 - step / NUM_STEPS)
        whole = np.sqrt(sum(norm(gradient) ** 2 for gradient in gradients.values()))
        for name, weight in weights.items():
            gradient = gradients[name] / max(1.0, whole / clip)
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            first_mean = first[name] / (1 - 0.9 ** (step + 1))
            second_mean = second[name] / (1 - 0.999 ** (step + 1))
            decay = weight_decay * DECAY[name]
            update = first_mean / (np.sqrt(second_mean) + 1e-6) + decay * weight
            trust = ratio(weight, update) if decay or always_adapt else 1.0
            weights[name] = weight - rate * RATE[name] * trust * update
    return weights


def lars(weight_decay, eta=0.02, momentum=0.9, nesterov=False) -> dict[str, np.ndarray]:
    """You et al. 2017 with the learning rate outside the momentum, as BYOL; float64."""
    weights = {name: value.astype(np.float64) for name, value in START.items()}
    accumulators = dict.fromkeys(SHAPES, 0.0)
    for step, gradients in enumerate(GRADIENTS):
        rate = PEAK * (1 - step / NUM_STEPS)
        for name, weight in weights.items():
            update = gradients[name].astype(np.float64)
            if DECAY[name]:
                update = update + weight_decay * DECAY[name] * weight
                if norm(weight) > 0 and norm(update) > 0:
                    update = update * eta * norm(weight) / norm(update)
            accumulators[name] = momentum * accumulators[name] + update
            ahead = update + momentum * accumulators[name]
            change = ahead if nesterov else accumulators[name]
            weights[name] = weight - rate * RATE[name] * change
    return weights


def trained(optimizer, mode="eager", **settings) -> dict[str, np.ndarray]:
    settings = dict(clip_norm=None, **TABLES) | settings
    optimization = Optimization(optimizer, PEAK, linear, **settings)
    steps = Steps(optimization, START, RunLength(NUM_STEPS), mode)
    return [steps.step(gradients) for gradients in GRADIENTS][-1]


def assert_close(found, expected):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("mode", MODES)
def test_lamb(mode):
    assert_close(trained(functools.partial(LAMB, weight_decay=0.05), mode), lamb(0.05))


def test_lamb_without_decay_adapts_nothing_unless_told():
    assert_close(trained(functools.partial(LAMB, weight_decay=0.0)), lamb(0.0))
    always = functools.partial(LAMB, weight_decay=0.0, always_adapt=True)
    assert_close(trained(always), lamb(0.0, always_adapt=True))
    assert np.abs(lamb(0.0)["norm/gamma"] - lamb(0.0, always_adapt=True)["norm/gamma"]).max() > 1e-3


def test_lambs_own_bound_of_the_gradients_can_be_lifted():
    free = functools.partial(LAMB, weight_decay=0.05, global_clipnorm=None)
    assert_close(trained(free), lamb(0.05, clip=np.inf))
    assert_close(trained(free, clip_norm=1.0), lamb(0.05))


@pytest.mark.parametrize("mode", MODES)
def test_lars(mode):
    assert_close(trained(functools.partial(LARS, weight_decay=0.1, eta=0.02), mode), lars(0.1))


def test_lars_looks_ahead_and_adapts_without_a_decay_too():
    nesterov = functools.partial(LARS, eta=0.02, nesterov=True)
    assert_close(trained(nesterov), lars(0.0, nesterov=True))


@pytest.mark.parametrize("optimizer", [LAMB, LARS])
def test_a_decay_that_only_the_schedule_scales_is_refused(optimizer):
    with pytest.raises(
        ValueError, match=f"{optimizer.__name__} scales the weight decay with the u"
    ):
        trained(optimizer, decay_scaled_by="schedule")


@pytest.mark.parametrize(
    "make, expected",
    [
        (
            functools.partial(LAMB, weight_decay=0.05, global_clipnorm=1.0),
            functools.partial(lamb, 0.05),
        ),
        (functools.partial(LARS, weight_decay=0.1, eta=0.02), functools.partial(lars, 0.1)),
    ],
)
def test_keras_own_way_of_excluding_weights_holds(make, expected, monkeypatch):
    """In plain Keras, with no Optimization around it."""
    monkeypatch.setitem(DECAY, "head/kernel", 1.0)
    monkeypatch.setattr(f"{__name__}.RATE", dict.fromkeys(SHAPES, 1.0))
    model = NamedWeights(START)
    rates = keras.optimizers.schedules.PolynomialDecay(PEAK, NUM_STEPS, end_learning_rate=0.0)
    optimizer = make(learning_rate=rates)
    excluded = [w for w in model.weights if not w.path.endswith("kernel")]
    optimizer.exclude_from_weight_decay(var_list=excluded)
    for gradients in GRADIENTS:
        optimizer.apply([gradients[name] for name in SHAPES], model.weights)
    assert_close(model.values(), expected())
