"""One probe at every depth of a model: which layer holds what."""

import copy
import dataclasses
import re
from collections.abc import Sequence

from vit_tf.evaluation.feature_names import POOLINGS
from vit_tf.evaluation.feature_set import FeatureSet
from vit_tf.evaluation.probes.base import Probe, ProbeResult
from vit_tf.suggestions import did_you_mean

# Outputs of a transformer's blocks, and of a residual network's units.
_BLOCK = re.compile(r"(block\d+/out|(resnet/)?block\d+/unit\d+)")


class LayerProbes(Probe):
    """The same probe on the output of every block, each alone.

    As in Raghu et al. (arXiv:2108.08810, section 6) and the layer-wise probes of Alain and Bengio
    (arXiv:1610.01644).

    Args:
      probe: what to measure with, such as `FewShotProbe()`; it takes one kind of features, and its
        own choice of them is not used.
      layers: numbers of blocks, of which -1 is the last, or names of intermediates. Default: all
        blocks, and those of a hybrid's stem.
      pool: how a layer's tokens or grid become a vector: `"gap"`, `"token"`, `"flat"`, or None for
        the model's own way; see `feature_names`.

    Raises:
      ValueError: if the probe takes several features, no layer is named, or there is no such way to
        pool.
    """

    def __init__(
        self, probe: Probe, layers: Sequence[str | int] | None = None, pool: str | None = "gap"
    ):
        if isinstance(probe, LayerProbes) or len(probe.features) != 1:
            raise ValueError(
                "LayerProbes.probe must take one kind of features, which each layer replaces; "
                f"given a {type(probe).__name__}"
            )
        if layers is not None and not len(layers):
            raise ValueError("LayerProbes.layers names no layer; None stands for all blocks")
        if pool is not None and pool not in POOLINGS:
            raise ValueError(f"pool must be one of {', '.join(POOLINGS)} or None; given {pool!r}")
        self.name = f"layers_{probe.name}"
        self._probe = probe
        self._layers = layers
        self._suffix = f":{pool}" if pool else ""
        self._features: tuple[str, ...] | None = None
        if layers is not None and all(isinstance(layer, str) for layer in layers):
            self._features = tuple(f"{layer}{self._suffix}" for layer in layers)

    @property
    def features(self) -> Sequence[str]:
        """Names of the layers' features.

        Raises:
          ValueError: if they are a model's to tell, and `for_model` has not been asked.
        """
        if self._features is None:
            raise ValueError("which layers there are is known after LayerProbes.for_model")
        return self._features

    def for_model(self, intermediate_names: Sequence[str]) -> "LayerProbes":
        """A copy whose `features` are those of a model.

        Args:
          intermediate_names: of the model.

        Raises:
          ValueError: if the model has no blocks, or not the layers that are asked for.
        """
        blocks = [name for name in intermediate_names if _BLOCK.fullmatch(name)]
        if self._layers is None and not blocks:
            raise ValueError(
                f"the model names no blocks, but {', '.join(intermediate_names)}; name the layers, "
                "e.g. LayerProbes.layers = ['pre_logits'] with pool = None"
            )
        wanted = blocks if self._layers is None else self._layers
        found = [_layer(layer, blocks, intermediate_names) for layer in wanted]
        bound = copy.copy(self)
        bound._features = tuple(f"{name}{self._suffix}" for name in found)
        return bound

    def evaluate(self, train: FeatureSet, test: FeatureSet) -> ProbeResult:
        """Measures every layer.

        Returns:
          `summary`: the probe's headline figure by layer, such as `{"block03": 0.5}`; the last
          layer's is the headline. `rows`: those of the probe, with their `layer`.

        Raises:
          ValueError: as the probe does.
        """
        summary, rows = {}, []
        for name in self.features:
            result = self._probe.evaluate(self._only(name, train), self._only(name, test))
            layer = name.removesuffix(self._suffix).removesuffix("/out")
            summary[layer] = result.summary[result.headline]
            rows += [row | {"layer": layer, "features": name} for row in result.rows]
        return ProbeResult(summary, rows, layer)

    def _only(self, name: str, split: FeatureSet) -> FeatureSet:
        """The split with one layer's features, under the name by which the probe knows its own."""
        if name not in split.features:
            raise ValueError(
                f"{split.name or 'a split'} has no features {name!r}, but "
                f"{', '.join(map(repr, split.features))}"
            )
        return dataclasses.replace(split, features={self._probe.features[0]: split.features[name]})


def _layer(layer: str | int, blocks: Sequence[str], names: Sequence[str]) -> str:
    if isinstance(layer, int):
        if not -len(blocks) <= layer < len(blocks):
            raise ValueError(f"there is no block {layer}; the model has {len(blocks)}")
        return blocks[layer]
    if layer not in names:
        hint = did_you_mean(layer, names) or f" Blocks are {', '.join(blocks)}"
        raise ValueError(f"there is no layer {layer!r}.{hint}")
    return layer
