"""Features of one split: what probes learn from and are measured on."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class FeatureSet:
    """Features and labels of a split's examples, each once, in the split's order.

    Args:
      features: name (see `feature_names`) -> float array [examples, width], which may be mapped
        from a file; read it in parts.
      labels: integers [examples], or float targets [examples, classes] of a multi-label source.
      num_classes: labels are in `[0, num_classes)`.
      class_names: a name a class, if known.
      name: what tables call the split, such as `"flowers5 test"`.

    Raises:
      ValueError: if features and labels are not of the same number of examples.
    """

    features: Mapping[str, np.ndarray]
    labels: np.ndarray
    num_classes: int
    class_names: Sequence[str] | None = None
    name: str = ""

    def __post_init__(self):
        for name, values in self.features.items():
            if values.ndim != 2 or len(values) != len(self.labels):
                raise ValueError(
                    f"{self.name or 'a feature set'}: features {name!r} must be "
                    f"[{len(self.labels)}, width] as there are {len(self.labels)} labels; given "
                    f"{list(values.shape)}"
                )

    def __len__(self) -> int:
        return len(self.labels)
