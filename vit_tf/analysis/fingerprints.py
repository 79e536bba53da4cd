"""Fingerprints of models: equal for equal weights, whatever file they came from."""

import hashlib
import os
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf


def weights_fingerprint(model: keras.Model) -> str:
    """SHA-256, in hexadecimal, of a model's weights in their order."""
    digest = hashlib.sha256()
    for weight in model.weights:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{value.shape}{value.dtype}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def saved_weights_fingerprint(folder: str) -> str:
    """SHA-256, in hexadecimal, of the files that hold a SavedModel's weights."""
    return _of_files(
        os.path.join(place, file)
        for place, _, files in sorted(tf.io.gfile.walk(os.path.join(folder, "variables")))
        for file in sorted(files)
    )


def saved_graph_fingerprint(folder: str) -> str:
    """SHA-256, in hexadecimal, of the file that says what a SavedModel computes."""
    return _of_files([os.path.join(folder, "saved_model.pb")])


def _of_files(paths: Iterator[str] | list[str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with tf.io.gfile.GFile(path, "rb") as opened:
            while block := opened.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()
