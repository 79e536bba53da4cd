"""What all probes have in common: from features of two splits to numbers."""

import abc
import copy
import dataclasses
from collections.abc import Sequence

from vit_tf.evaluation.feature_set import FeatureSet


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """What a probe measured.

    Args:
      summary: the figures for a log, such as `{"10_shot": 0.71, "10_shot_std": 0.02}`; shares are
        in [0, 1].
      rows: every single measurement for a table, such as
        `{"probe": "few_shot", "features": "pre_logits", "shots": 10, "seed": 0, "accuracy": 0.7}`.
      headline: the name in `summary` of the one figure that stands for the probe.
    """

    summary: dict[str, float]
    rows: list[dict[str, str | int | float]]
    headline: str


class Probe(abc.ABC):
    """Measures how well frozen features tell classes apart.

    Test labels are for measuring alone; whatever a probe chooses, it chooses by the training split.

    Attributes:
      name: of the kind of probe, such as `"few_shot"`; it begins the names in logs.
      features: names of the features that `evaluate` needs in both splits.
    """

    name: str
    features: Sequence[str]

    def for_model(self, intermediate_names: Sequence[str]) -> "Probe":
        """The probe as it is for a certain model; what extracts features asks for this first.

        Most probes are the same for all models; `LayerProbes` learns here which layers there are.

        Args:
          intermediate_names: of the model.

        Returns:
          A probe that names its `features`: this one, or a copy.
        """
        del intermediate_names
        return self

    def on(self, feature: str) -> "Probe":
        """A copy that learns from another feature, such as `"pixels"` for a baseline."""
        probe = copy.copy(self)
        probe.features = (feature,)
        return probe

    @abc.abstractmethod
    def evaluate(self, train: FeatureSet, test: FeatureSet) -> ProbeResult:
        """Learns from one split and measures on the other.

        Args:
          train: the split to learn from.
          test: the split to measure on, of the same classes.

        Returns:
          The measurements.

        Raises:
          ValueError: if the splits do not fit each other or the probe.
        """
