"""Figures as PNG files, on any file system that TensorFlow knows."""

import io
import os

import tensorflow as tf
from matplotlib.figure import Figure


def write_png(figure: Figure, path: str) -> bytes:
    """Writes a figure, makes the folder if need be, and returns what was written."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(png.getvalue())
    return png.getvalue()
