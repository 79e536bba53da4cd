"""A SavedModel on disk: where it lies, and which signatures it has."""

import os

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2


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


def read_signatures(saved_model: str) -> dict[str, meta_graph_pb2.SignatureDef]:
    """The signatures of a SavedModel by name, without loading its graph."""
    proto = saved_model_pb2.SavedModel()
    with tf.io.gfile.GFile(os.path.join(saved_model, "saved_model.pb"), "rb") as file:
        proto.ParseFromString(file.read())
    found = proto.meta_graphs[0].signature_def
    return {name: found[name] for name in sorted(found) if not name.startswith("__")}


def _is_saved_model(folder: str) -> bool:
    return tf.io.gfile.exists(os.path.join(folder, "saved_model.pb"))
