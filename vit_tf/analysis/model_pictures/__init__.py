"""Pictures of what is inside models, by name, each with the text that teaches how to read it."""

from vit_tf.analysis.model_pictures.picture import Picture, Subject
from vit_tf.analysis.model_pictures.table import PICTURES, Drawn, choose_pictures, draw_pictures

__all__ = ["PICTURES", "Drawn", "Picture", "Subject", "choose_pictures", "draw_pictures"]
