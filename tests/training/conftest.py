"""A tiny ViT on the digits: small enough to train in a test, real enough to learn."""

import functools

import pytest

from vit_tf.data.input import Input
from vit_tf.data.tfds_source import TFDSSource
from vit_tf.models import create_model
from vit_tf.training import Classification, Estimator, Optimization, RunConfig

TINY = dict(
    name="vit",
    image_size=8,
    patch_size=4,
    width=32,
    depth=2,
    num_heads=2,
    mlp_dim=64,
    pool="gap",
    num_classes=10,
)


@pytest.fixture(scope="session")
def make_task():
    """`make_task(mixing=None, **overrides of the model)`."""

    def make(mixing=None, **overrides):
        model = functools.partial(create_model, **{**TINY, **overrides})
        return Classification(model, mixing=mixing)

    return make


@pytest.fixture(scope="session")
def train_input(digits_dir):
    return Input(
        TFDSSource(digits_dir, "train"),
        "decode|random_crop(8, padding=1)|value_range(-1, 1)",
        batch_size=64,
        training=True,
    )


@pytest.fixture(scope="session")
def eval_input(digits_dir):
    return Input(
        TFDSSource(digits_dir, "test"),
        "decode|resize(8)|value_range(-1, 1)",
        batch_size=100,
        training=False,
    )


@pytest.fixture
def make_estimator(make_task, tmp_path):
    """`make_estimator(model_dir=None, model={...}, mixing=None, **RunConfig)`; trains fast.

    Of another task: `make_estimator(task=...)`.
    """

    def make(model_dir=None, model=None, mixing=None, peak=3e-3, task=None, **config):
        optimization = Optimization(learning_rate=peak)
        settings = {"strategy": "cpu", "optimization": optimization, "steps": 20, **config}
        task = task or make_task(mixing, **(model or {}))
        return Estimator(task, model_dir or tmp_path / "run", RunConfig(**settings))

    return make
