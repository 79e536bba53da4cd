"""One pass of a frozen model over a split: batches of features, on any strategy."""

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from vit_tf.data.input import READ_ERRORS, Input
from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.featurizers import Featurizer, as_featurizer
from vit_tf.layers import compiled_by_xla

# A bar appears when a pass takes longer, and only where a person looks at it.
_BAR_AFTER_SECONDS = 3.0


class FeatureBatch(NamedTuple):
    """Real examples of one global batch, padding left out.

    Attributes:
      step: number of the batch, from 0.
      index: int64 [examples], the numbers of their records in the split.
      labels: int32 [examples], or float32 [examples, classes].
      features: by name, float32 [examples, width].
    """

    step: int
    index: np.ndarray
    labels: np.ndarray
    features: dict[str, np.ndarray]


class Extractor:
    """Computes features of a split as often as it is called; traced once.

    Args:
      model: a model of `create_model`, the folder of a SavedModel from encoded images, a
        `Featurizer`, or None for `"pixels"` alone.
      data: evaluation data, `Input(..., training=False)`.
      features: one name or several; see `feature_names`.
      strategy: where to run. Default: the current one.
      weights: makes a scope, in replica context, in which the model has the weights that are to be
        looked at, such as averages. Default: its own.

    Raises:
      ValueError: for training data, and for features or images that do not fit the model.
    """

    def __init__(
        self,
        model: "keras.Model | str | os.PathLike | Featurizer | None",
        data: Input,
        features: str | Sequence[str],
        strategy: tf.distribute.Strategy | None = None,
        weights: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ):
        self.featurizer = as_featurizer(model)
        self.data = data
        self.names = [features] if isinstance(features, str) else list(dict.fromkeys(features))
        self.strategy = strategy or tf.distribute.get_strategy()
        self.weights = weights
        self.num_traces = 0
        self._check()
        self._compute = tf.function(self._gathered_features, autograph=False)

    def _check(self) -> None:
        if self.data.training:
            raise ValueError(
                "features are computed of every example once: give an Input(..., training=False) "
                f"of {self.data.source.name}, whose preprocessing has no random ops"
            )
        self.featurizer.check(self.names, self.data)
        replicas = self.strategy.num_replicas_in_sync
        if self.featurizer.one_device and replicas > 1:
            raise ValueError(
                f"{self.featurizer.name} runs on one device, and the strategy has {replicas} "
                "replicas; leave it out, or load the checkpoint into a model of create_model"
            )

    def __call__(self) -> FeatureSet:
        """One pass; the features are in memory.

        Raises:
          ValueError: for records that cannot be read.
        """
        batches = list(self.batches())
        index = np.concatenate([batch.index for batch in batches])
        order = np.argsort(index, kind="stable")

        def column(values: list[np.ndarray]) -> np.ndarray:
            return np.concatenate(values)[order]

        features = {name: column([b.features[name] for b in batches]) for name in self.names}
        return self.feature_set(features, column([batch.labels for batch in batches]))

    def feature_set(self, features: dict[str, np.ndarray], labels: np.ndarray) -> FeatureSet:
        """A `FeatureSet` of what was computed."""
        if not len(labels):
            raise ValueError(f"{self.data.source.name} holds no example that can be read")
        return FeatureSet(
            features,
            labels,
            self.data.num_classes,
            self.data.class_names,
            self.data.source.name,
        )

    def of(self, features: Sequence[str]) -> "Extractor":
        """An extractor of other features that is like this one."""
        return Extractor(self.featurizer, self.data, features, self.strategy, self.weights)

    @functools.cached_property
    def worker(self) -> tf.distribute.InputContext:
        """Which of the strategy's processes this one is."""
        contexts = []

        def note(context: tf.distribute.InputContext) -> tf.data.Dataset:
            contexts.append(context)
            return tf.data.Dataset.range(1)

        self.strategy.distribute_datasets_from_function(note)
        return contexts[0]

    @property
    def is_chief(self) -> bool:
        """Whether this is the first of the strategy's processes."""
        return self.worker.input_pipeline_id == 0

    def told_by_chief(self, numbers: Sequence[int]) -> list[int]:
        """What the first process says, in all of them; they wait for each other."""
        if self.worker.num_input_pipelines == 1:
            return list(numbers)
        own = tf.constant([numbers], tf.int64)
        of_all = self.strategy.gather(self.strategy.run(tf.identity, args=(own,)), axis=0)
        return of_all[0].numpy().tolist()

    def batches(self, start_step: int = 0) -> Iterator[FeatureBatch]:
        """The features of batch after batch; every process of a strategy gets those of all.

        Args:
          start_step: the first batch.
        """
        dataset = iter(
            self.strategy.distribute_datasets_from_function(
                lambda context: self.featurizer.batches(self.data, context, start_step)
            )
        )
        context = self.worker
        steps = self.data.eval_steps(context.num_input_pipelines)
        examples, size = self.data.examples_per_epoch, self.data.batch_size
        quiet = context.input_pipeline_id > 0 or not sys.stderr.isatty()
        with (
            tqdm(
                total=examples,
                initial=min(start_step * size, examples),
                desc=f"features of {self.data.source.name}",
                unit=" images",
                delay=_BAR_AFTER_SECONDS,
                disable=quiet,
            ) as bar,
            self._named_data_errors(start_step, context),
        ):
            for step in range(start_step, steps):
                batch = _numpy(step, self._compute(next(dataset)))
                bar.update(len(batch.index))
                yield batch

    def _gathered_features(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Of a distributed batch what every process is to know of all replicas."""
        self.num_traces += 1
        on_tpu = isinstance(self.strategy, tf.distribute.TPUStrategy)

        def replica_step(own: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            with self.weights(), compiled_by_xla(on_tpu):
                features = self.featurizer.features(own["image"], self.names)
            about = {name: own[name] for name in ("index", "label", "mask")}
            return {"features": features, **about}

        values = self.strategy.run(replica_step, args=(batch,))
        return tf.nest.map_structure(lambda value: self.strategy.gather(value, axis=0), values)

    @contextlib.contextmanager
    def _named_data_errors(
        self, start_step: int, context: tf.distribute.InputContext
    ) -> Iterator[None]:
        """Turns an error of the input pipeline into one that names file and record."""
        try:
            yield
        except READ_ERRORS as error:
            diagnosis = self.data.diagnose(start_step, context)
            if diagnosis is None:
                raise
            raise ValueError(diagnosis) from error


def _numpy(step: int, values: dict) -> FeatureBatch:
    real = values["mask"].numpy() > 0
    features = {name: value.numpy()[real] for name, value in values["features"].items()}
    return FeatureBatch(
        step, values["index"].numpy()[real], values["label"].numpy()[real], features
    )
