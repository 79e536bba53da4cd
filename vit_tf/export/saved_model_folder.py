"""Where a SavedModel lies: in the folder given, or in the newest of its numbered ones."""

import os

import tensorflow as tf


def find_saved_model(folder: str) -> str:
    """Returns the folder of a SavedModel: the one given, or the newest of its numbered ones.

    Args:
      folder: local or remote; `export_saved_model` writes numbered folders into its `export_dir`.

    Raises:
      FileNotFoundError: if there is none.
    """
    if _is_saved_model(folder):
        return folder
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    numbers = sorted((int(n.strip("/")) for n in names if n.strip("/").isdigit()), reverse=True)
    for number in numbers:
        if _is_saved_model(numbered := os.path.join(folder, str(number))):
            return numbered
    raise FileNotFoundError(
        f"{folder} is no SavedModel, nor a folder of numbered ones; write one with python "
        "tools/export.py"
    )


def _is_saved_model(folder: str) -> bool:
    return tf.io.gfile.exists(os.path.join(folder, "saved_model.pb"))
