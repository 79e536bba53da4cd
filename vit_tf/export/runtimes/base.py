"""What a runtime's file defines: the kinds of models that it writes and runs."""

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence

import numpy as np

from vit_tf.export.runtimes.served_model import ServedModel

# Preprocessed images float32 [b, height, width, channels] -> "logits" and "probabilities", float32
# [b, classes].
Run = Callable[[np.ndarray], dict[str, np.ndarray]]

# Largest difference of a logit from the SavedModel's as a share of the largest logit. float32:
# kernels that sum in another order. float16: weights rounded to 11 bits. bfloat16: all to 8 bits.
TOLERANCES = {"float32": 1e-4, "float16": 4e-3, "bfloat16": 3e-2}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A format and a precision that a runtime runs a model in.

    Attributes:
      name: such as `litert_float16`.
      extra: what to install, a name of `extras_require` in `setup.py`.
      packages: what is imported, to see whether it is installed.
      write: gets the model, the folder to write into and preprocessed images [height, width,
        channels] to calibrate with; returns what is worth knowing of the result, for its metadata.
      open: gets the folder and a number of threads; returns the model ready to run.
      tolerance: largest difference of a logit from the SavedModel's as a share of the largest
        logit, above which a model is not published; None for quantised models, which their
        accuracy judges.
      needs_images: whether `write` cannot do without images.
    """

    name: str
    extra: str
    packages: tuple[str, ...]
    write: Callable[[ServedModel, str, Sequence[np.ndarray]], dict[str, object]]
    open: Callable[[str, int], Run]
    tolerance: float | None
    needs_images: bool = False

    def require(self) -> None:
        """Raises ImportError if what this kind needs is not installed."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if missing:
            raise ImportError(
                f"{self.name} needs {' and '.join(missing)}, which is not installed: "
                f"pip install -e '.[{self.extra}]'"
            )
