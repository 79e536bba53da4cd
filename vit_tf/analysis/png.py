"""Figures as PNG files, on any file system that TensorFlow knows."""

import io

from matplotlib.figure import Figure

from vit_tf.analysis.whole_file import write_whole


def write_png(figure: Figure, path: str) -> bytes:
    """Writes a figure, makes the folder if need be, and returns what was written."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=110)
    write_whole(path, png.getvalue())
    return png.getvalue()
