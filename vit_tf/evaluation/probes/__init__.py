"""Probes: how well frozen features tell classes apart."""

from vit_tf.evaluation.probes.base import Probe, ProbeResult

__all__ = ["Probe", "ProbeResult"]
