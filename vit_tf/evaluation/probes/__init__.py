"""Probes: how well frozen features tell classes apart."""

from vit_tf.evaluation.probes.base import Probe, ProbeResult
from vit_tf.evaluation.probes.few_shot import FewShotProbe
from vit_tf.evaluation.probes.knn import KNNProbe
from vit_tf.evaluation.probes.layers import LayerProbes
from vit_tf.evaluation.probes.linear import LinearProbe
from vit_tf.evaluation.probes.logistic import LogisticProbe

__all__ = [
    "FewShotProbe",
    "KNNProbe",
    "LayerProbes",
    "LinearProbe",
    "LogisticProbe",
    "Probe",
    "ProbeResult",
]
