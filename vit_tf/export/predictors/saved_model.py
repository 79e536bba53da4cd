"""Predictions of a SavedModel that `export_saved_model` wrote."""

import tensorflow as tf

from vit_tf.export.card_lines import card_lines
from vit_tf.export.predictors.signatures import SignaturePredictor
from vit_tf.export.saved_keras import model_card
from vit_tf.export.saved_model_folder import find_saved_model


class SavedModelPredictor(SignaturePredictor):
    """Classifies encoded images with a SavedModel.

    Args:
      folder: of the SavedModel, or of numbered ones, of which the newest is taken.

    Attributes:
      folder: of the SavedModel.

    Raises:
      FileNotFoundError: if there is none.
      ValueError: if it cannot be loaded, or does not take encoded images.
    """

    def __init__(self, folder: str):
        self.folder = find_saved_model(folder)
        try:
            # Kept, since its signatures hold their variables only weakly.
            self._loaded = tf.saved_model.load(self.folder)
        except (tf.errors.OpError, OSError) as error:
            raise ValueError(
                f"{self.folder} cannot be loaded: {error}; copy or export it again"
            ) from error
        signatures = self._loaded.signatures
        super().__init__(signatures, f"SavedModel {self.folder}")
        inputs = signatures["serving_default"].structured_input_signature[1]
        if "image_bytes" not in inputs:
            raise ValueError(
                f"{self.folder} was not written by vit_tf: its serving_default takes "
                f"{', '.join(inputs)}, not image_bytes"
            )

    def facts(self) -> dict[str, str]:
        """What the model card says; see `card_lines`."""
        try:
            card = model_card(self.folder)
        except FileNotFoundError:
            return {}
        return card_lines(card)
