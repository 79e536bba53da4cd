"""Small files that are either the old or the new one, never half."""

import os

import tensorflow as tf


def write_whole(path: str, content: bytes) -> None:
    """Writes a file aside and renames it; makes the folder if need be.

    Args:
      path: on any file system that TensorFlow knows.
      content: of the file.
    """
    tf.io.gfile.makedirs(os.path.dirname(path))
    aside = f"{path}.{os.getpid()}.tmp"
    with tf.io.gfile.GFile(aside, "wb") as file:
        file.write(content)
    tf.io.gfile.rename(aside, path, overwrite=True)
