"""Single training steps of a linear model, whose gradients a person can write down."""

import keras
import numpy as np
import tensorflow as tf

from vit_tf.training import Optimization, RunConfig, Task
from vit_tf.training.run_length import RunLength
from vit_tf.training.step import TrainStep
from vit_tf.training.strategies import create_strategy

BATCH = 4


class Regression(Task):
    """The square error of `x @ kernel` against y, halved."""

    metric = "loss"

    def __init__(self, normalized: bool = False):
        self._normalized = normalized

    def build_model(self):
        layers = [keras.layers.Dense(1, use_bias=False, name="head")]
        if self._normalized:
            layers.insert(0, keras.layers.BatchNormalization(momentum=0.5, name="norm"))
        model = keras.Sequential([keras.Input([3]), *layers])
        model.get_layer("head").kernel.assign([[1.0], [-2.0], [0.5]])
        return model

    def train_values(self, model, batch):
        error = model(batch["image"], training=True)[:, 0] - batch["label"]
        return {"loss": 0.5 * error**2}

    def eval_values(self, model, batch):
        raise NotImplementedError

    def predict_values(self, model, images):
        raise NotImplementedError


def batches(count: int) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    return [
        {
            "image": generator.normal(size=(BATCH, 3)).astype(np.float32),
            "label": generator.normal(size=BATCH).astype(np.float32),
            "mask": np.ones(BATCH, np.float32),
        }
        for _ in range(count)
    ]


class Steps:
    """A model and its step; `run(batch)` takes one step and returns the weights after it."""

    def __init__(self, task=None, strategy="cpu", optimizer=None, rate=0.1, sam_rho=None, **config):
        self.strategy = create_strategy(strategy)
        optimization = Optimization(
            optimizer or keras.optimizers.SGD, rate, 1.0, clip_norm=None, sam_rho=sam_rho
        )
        task = task or Regression()
        with self.strategy.scope():
            self.model = task.build_model()
            optimization.build(self.model, RunLength(10))
        self.optimizer = optimization.optimizer
        self.step = TrainStep(
            task, self.model, RunConfig(optimization=optimization, **config), self.strategy, BATCH
        )
        self._run = tf.function(lambda shares: self.strategy.run(self.step, args=(shares,)))

    def run(self, batch) -> list[np.ndarray]:
        share = BATCH // self.strategy.num_replicas_in_sync

        def of_replica(context):
            first = context.replica_id_in_sync_group * share
            return {name: tf.constant(v[first : first + share]) for name, v in batch.items()}

        self._run(self.strategy.experimental_distribute_values_from_function(of_replica))
        return self.model.get_weights()

    def state(self) -> list[np.ndarray]:
        """All that a step changes, but its number."""
        variables = [*self.model.weights, *self.optimizer.variables[2:]]
        averages = self.step.averages.variables.values() if self.step.averages else []
        return [v.numpy() for v in [*variables, *averages]]


def gradient(kernel: np.ndarray, batch) -> np.ndarray:
    """Of the mean loss with respect to the kernel [3, 1], in float64."""
    images = batch["image"].astype(np.float64)
    error = images @ kernel[:, 0] - batch["label"]
    return (images.T @ error / BATCH)[:, None]
