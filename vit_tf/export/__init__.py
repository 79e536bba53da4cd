"""Export: SavedModels for serving, checked against what was evaluated."""

from vit_tf.export.saved_model import export_saved_model

__all__ = ["export_saved_model"]
