"""Export: SavedModels for serving, checked against what was evaluated."""

from vit_tf.export.export_model import export_model
from vit_tf.export.options import ExportOptions
from vit_tf.export.saved_model import export_saved_model

__all__ = ["ExportOptions", "export_model", "export_saved_model"]
