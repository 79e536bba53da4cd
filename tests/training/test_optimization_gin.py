"""Optimizers, schedules and tables through gin: all of ours, Keras' own, and a user's."""

import functools
import re
import sys

import gin
import keras
import pytest

from vit_tf.models import create_model
from vit_tf.training import configuration
from vit_tf.training.run_length import RunLength

LENGTH = RunLength(steps=20, batch_size=8, examples_per_epoch=40)
OWN_MODULE = """
import gin
import keras


@gin.configurable
class Shrink(keras.optimizers.Optimizer):
    def __init__(self, learning_rate=0.1, amount=0.5, **kwargs):
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.amount = amount

    def update_step(self, gradient, variable, learning_rate):
        self.assign(variable, variable * (1 - self.amount * learning_rate))


@gin.configurable
class Halved(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, every=1):
        self.every = every

    def __call__(self, step):
        return 0.5 ** (keras.ops.cast(step, "float32") / self.every)
"""


@pytest.fixture(autouse=True)
def clean_gin():
    yield
    gin.clear_config()


@functools.cache
def model():
    return create_model(
        "vit", image_size=8, patch_size=4, width=4, depth=2, num_heads=2, mlp_dim=4, num_classes=3
    )


def built(*bindings):
    configuration.parse([], bindings)
    optimization = configuration.bound("Optimization")()
    optimization.build(model(), LENGTH)
    return optimization


# gin has a `gin.constant` of its own, which must not stand in the way of ours.
@pytest.mark.parametrize(
    "name",
    ["constant", "cosine", "epoch_cosine", "linear", "polynomial", "rsqrt", "staircase"],
)
def test_every_schedule_has_its_durations_in_gin(name):
    optimization = built(
        "Optimization.learning_rate = 0.5",
        f"Optimization.schedule = @{name}",
        f"{name}.warmup = '1 epoch'",
        f"{name}.cooldown = '25%'",
        f"{name}.warmup_start = 0.1",
    )
    assert float(optimization.optimizer.learning_rate) == pytest.approx(0.05)
    assert configuration.unused_bindings() == []


@pytest.mark.parametrize("name", ["Adafactor", "Adam", "AdamW", "Lion", "Muon", "Nadam", "SGD"])
def test_keras_optimizers_have_their_names_in_gin(name):
    optimization = built(f"Optimization.optimizer = @{name}", f"{name}.weight_decay = 0.25")
    assert isinstance(optimization.optimizer, getattr(keras.optimizers, name))
    assert "weight decay, x 0.25 x learning rate" in optimization.describe()


def test_tables_are_written_in_gin():
    optimization = built(
        "Optimization.learning_rate = 0.1",
        "Optimization.learning_rate_table = @layerwise_decay()",
        "layerwise_decay.rate = 0.5",
        "Optimization.weight_decay_table = (('head/kernel', 100.0), ('.*', 1.0))",
        "Optimization.trainable_table = (('patch_embedding/.*', False), ('.*', True))",
        "Optimization.schedule = @constant",
    )
    rates = optimization.learning_rates()
    assert rates == pytest.approx(
        {
            "patch_embedding_class_token_positions": 0.0125,
            "block00": 0.025,
            "block01": 0.05,
            "encoder_norm_head": 0.1,
        }
    )
    assert re.search(r"100 +head/kernel +1 weight ", optimization.describe())


def test_a_users_own_optimizer_and_schedule_drop_in(tmp_path, monkeypatch):
    (tmp_path / "users_own.py").write_text(OWN_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    optimization = built(
        "import users_own",
        "Optimization.optimizer = @Shrink",
        "Shrink.amount = 0.25",
        "Optimization.learning_rate = 1.0",
        "Optimization.schedule = @Halved()",
        "Halved.every = 2",
    )
    assert type(optimization.optimizer).__name__ == "Shrink"
    assert optimization.optimizer.amount == 0.25
    optimization.optimizer.iterations.assign(4)
    assert float(optimization.optimizer.learning_rate) == pytest.approx(0.25)
    assert configuration.unused_bindings() == []
    del sys.modules["users_own"]


def test_a_misspelt_name_answers_with_the_closest():
    with pytest.raises(ValueError, match="Did you mean 'MomentumSGD"):
        configuration.parse([], ["Optimization.optimizer = @MomentumSDG"])
    with pytest.raises(ValueError, match="Did you mean 'timescale"):
        configuration.parse([], ["rsqrt.timescal = 10"])
