"""One model on one data set: features extracted once, and every probe run on them."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from vit_tf.data import Input, Source
from vit_tf.evaluation.class_coverage import coverage_notes
from vit_tf.evaluation.extraction import extract
from vit_tf.evaluation.featurizers import as_featurizer
from vit_tf.evaluation.probe_report import Measurement
from vit_tf.evaluation.probes import LayerProbes, Probe


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is measured.

    Args:
      name: what tables call it.
      model: as `extract` takes it; None stands for the pixels themselves.
      preprocess: evaluation's preprocessing, a string of ops.
      baseline: whether it stands beside the others for comparison.
    """

    name: str
    model: Any
    preprocess: str
    baseline: bool = False


@dataclasses.dataclass(frozen=True)
class Study:
    """What a model is measured by.

    Args:
      data: name of the data set.
      sources: of the training and of the test split.
      probes: to run on their features.
      batch_size: images in a batch.
      inputs: of the two splits, used for models instead of `sources` with each model's own
        preprocessing.
    """

    data: str
    sources: tuple[Source, Source]
    probes: Sequence[Probe]
    batch_size: int = 64
    inputs: tuple[Input, Input] | None = None

    def inputs_of(self, subject: Subject) -> Sequence[Input]:
        """The training and the test input, neither shuffled nor augmented."""
        if self.inputs and subject.model is not None:
            return self.inputs
        return [
            Input(source, subject.preprocess, self.batch_size, training=False)
            for source in self.sources
        ]


def measure(
    subject: Subject, study: Study, cache_dir: str | None = None
) -> tuple[list[Measurement], list[str]]:
    """Runs a study's probes on a subject's features, which are extracted once.

    Args:
      subject: what is measured. Of pixels a probe looks at `"pixels"`, whatever its own features;
        layers they have none.
      study: the data set and the probes.
      cache_dir: see `extract`.

    Returns:
      A measurement a probe, and sentences about classes with too few training examples.

    Raises:
      ValueError: as `extract` and the probes do.
    """
    featurizer = as_featurizer(subject.model)
    probes = study.probes
    if subject.model is None:
        probes = [probe.on("pixels") for probe in probes if not isinstance(probe, LayerProbes)]
    else:
        probes = [probe.for_model(featurizer.tensors) for probe in probes]
    names = list(dict.fromkeys(name for probe in probes for name in probe.features))
    if not names:
        return [], []
    inputs = study.inputs_of(subject)
    train, test = (extract(featurizer, data, names, cache_dir=cache_dir) for data in inputs)
    results = [probe.evaluate(train, test) for probe in probes]
    sizes = (train.num_classes, len(train), len(test))
    measurements = [
        Measurement(subject.name, study.data, probe.name, result, *sizes)
        for probe, result in zip(probes, results, strict=True)
    ]
    return measurements, coverage_notes(train, test, results)


def fresh_subjects(subjects: Sequence[Subject]) -> list[Subject]:
    """The same models with fresh weights, as baselines; one for those of the same configuration."""
    configurations: dict[str, Subject] = {}
    for subject in subjects:
        text = json.dumps([type(subject.model).__name__, subject.model.get_config()], default=str)
        configurations.setdefault(text, subject)
    return [
        Subject(
            "random" if len(configurations) == 1 else f"{subject.name}, random",
            type(subject.model).from_config(subject.model.get_config()),
            subject.preprocess,
            baseline=True,
        )
        for subject in configurations.values()
    ]
