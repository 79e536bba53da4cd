"""Probes: how well frozen features tell classes apart."""

from vit_tf.evaluation.probes.base import Probe, ProbeResult
from vit_tf.evaluation.probes.layers import LayerProbes
from vit_tf.evaluation.probes.linear import LinearProbe
from vit_tf.evaluation.probes.logistic import LogisticProbe

__all__ = ["LayerProbes", "LinearProbe", "LogisticProbe", "Probe", "ProbeResult"]
