"""What other runtimes are converted from: a SavedModel's function of preprocessed images."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from vit_tf.export.saved_keras import model_card
from vit_tf.export.saved_model_folder import find_saved_model

_HALF_TYPES = (tf.bfloat16.as_datatype_enum, tf.float16.as_datatype_enum)


class ServedModel:
    """The signature `model` of a SavedModel of `export_saved_model`, ready to run.

    Args:
      folder: of the SavedModel, or of numbered ones, of which the newest is taken.

    Attributes:
      folder: of the SavedModel.
      card: its model card.
      trackable: what was loaded; it keeps the variables alive.
      function: the signature, float32 [b, height, width, channels] -> `logits`, `probabilities`.
      image_shape: (height, width, channels).

    Raises:
      FileNotFoundError: if there is no SavedModel, or it has no model card.
      ValueError: if it cannot be loaded, or is not one of `export_saved_model`.
    """

    def __init__(self, folder: str):
        self.folder = find_saved_model(folder)
        self.card = model_card(self.folder)
        try:
            self.trackable = tf.saved_model.load(self.folder)
        except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"the SavedModel {self.folder} cannot be loaded: {reason}") from error
        missing = {"model", "preprocess"} - set(self.trackable.signatures)
        if missing:
            raise ValueError(
                f"the SavedModel {self.folder} has no signature {' nor '.join(sorted(missing))}; "
                f"it has {', '.join(sorted(self.trackable.signatures)) or 'none'}. "
                "Export it again with python tools/export.py"
            )
        self.function = self.trackable.signatures["model"]
        (spec,) = self.function.structured_input_signature[1].values()
        self.image_shape = tuple(spec.shape[1:])

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns `logits` and `probabilities` of preprocessed images."""
        outputs = self.function(images=tf.constant(images))
        return {name: values.numpy() for name, values in outputs.items()}

    def preprocess(self, encoded: Sequence[bytes]) -> np.ndarray:
        """Returns images as the model takes them, [b, height, width, channels].

        Raises:
          ValueError: if one cannot be read.
        """
        outputs = self.trackable.signatures["preprocess"](image_bytes=tf.constant(encoded))
        for number, error in enumerate(outputs["error"].numpy()):
            if error:
                raise ValueError(f"image {number} of {len(encoded)}: {error.decode()}")
        return outputs["images"].numpy()

    def fingerprint(self) -> str:
        """Returns what tells this SavedModel, its weights included, from others."""
        return tf.saved_model.experimental.read_fingerprint(self.folder).singleprint()

    def check_float32(self, kind: str) -> None:
        """Raises ValueError if it computes in half precision, which few runtimes have ops for."""
        graph = self.function.graph.as_graph_def()
        nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
        types = {value.type for node in nodes for value in node.attr.values()}
        if found := types.intersection(_HALF_TYPES):
            names = " and ".join(tf.as_dtype(value).name for value in sorted(found))
            raise ValueError(
                f"the SavedModel {self.folder} computes in {names}; {kind} is converted from one "
                "in float32, and rounds by itself. Export the model in float32 for it"
            )
