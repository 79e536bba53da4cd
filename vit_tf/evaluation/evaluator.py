"""Evaluators: a probe with the splits that it learns from and is measured on."""

import contextlib
import os
from collections.abc import Callable

import keras
import tensorflow as tf

from vit_tf.data import Input
from vit_tf.evaluation.extractor import Extractor
from vit_tf.evaluation.feature_cache import FeatureCache
from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.featurizers import as_featurizer
from vit_tf.evaluation.probes import Probe, ProbeResult


class ProbeEvaluator:
    """Measures what a model's features are worth on a data set.

    Training runs it every so many steps and at the end, on any strategy, and is not disturbed: the
    weights come out bit for bit as without it. In gin

        run.evaluators = [@flowers/ProbeEvaluator]
        flowers/ProbeEvaluator.probe = @FewShotProbe()
        flowers/ProbeEvaluator.train_input = @flowers/train/Input()
        flowers/ProbeEvaluator.test_input = @flowers/test/Input()
        flowers/ProbeEvaluator.name = "flowers"

    Args:
      probe: what is measured.
      train_input: the split that the probe learns from, an `Input` with `training=False`.
      test_input: the split that it is measured on.
      name: of the data, in logs: `few_shot/<name>/10_shot`.
      every: in training, steps between evaluations, or a duration such as "5 epochs" or "10%",
        which is brought to the nearest end of a loop. Default: as often as the run evaluates.
      cache_dir: keeps features on disk; see `FeatureCache`. Of use for weights that stay, such as
        a frozen backbone's. Default: features are in memory while they are needed.

    Raises:
      ValueError: for inputs that are for training, or of different classes.
    """

    def __init__(
        self,
        probe: Probe,
        train_input: Input,
        test_input: Input,
        name: str,
        every: int | str | None = None,
        cache_dir: str | os.PathLike | None = None,
    ):
        if not name:
            raise ValueError("ProbeEvaluator.name must name the data, such as 'flowers'")
        if train_input.num_classes != test_input.num_classes:
            raise ValueError(
                f"evaluator {name!r}: {train_input.source.name} has {train_input.num_classes} "
                f"classes and {test_input.source.name} {test_input.num_classes}"
            )
        for data in (train_input, test_input):
            if data.training:
                raise ValueError(
                    f"evaluator {name!r}: features are computed of every example once; set "
                    f"Input.training = False for {data.source.name}"
                )
        self.probe = probe
        self.name = name
        self.every = every
        self.inputs = (train_input, test_input)
        self._cache_dir = cache_dir
        # What was traced last, and for what.
        self._traced: tuple[tuple, list[Extractor], Probe] | None = None

    def check(self, model: keras.Model) -> None:
        """Raises ValueError if a model has not the features, or takes other images."""
        featurizer = as_featurizer(model)
        features = self.probe.for_model(featurizer.tensors).features
        for data in self.inputs:
            featurizer.check(features, data)

    def __call__(
        self,
        model: keras.Model,
        strategy: tf.distribute.Strategy | None = None,
        weights: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ) -> ProbeResult:
        """Extracts the features of both splits, and lets the probe measure.

        Nothing is traced again when the same model comes again with other weights.

        Args:
          model: see `extract`.
          strategy: see `extract`. All its processes get the result.
          weights: makes a scope, in replica context, in which the model has the weights that are to
            be evaluated. Default: its own.
        """
        extractors, probe = self._extractors(model, strategy, weights)
        train, test = (self._features(extractor) for extractor in extractors)
        return probe.evaluate(train, test)

    def _features(self, extractor: Extractor) -> FeatureSet:
        if self._cache_dir is None:
            return extractor()
        return FeatureCache(self._cache_dir, extractor).features()

    def _extractors(self, model, strategy, weights) -> tuple[list[Extractor], Probe]:
        given = (model, strategy, weights)
        if self._traced is None or self._traced[0] != given:
            featurizer = as_featurizer(model)
            probe = self.probe.for_model(featurizer.tensors)
            extractors = [
                Extractor(featurizer, data, probe.features, strategy, weights)
                for data in self.inputs
            ]
            self._traced = (given, extractors, probe)
        return self._traced[1:]
