"""Signatures in this process, called on encoded images."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vit_tf.export.predictors.base import Predictor


class SignaturePredictor(Predictor):
    """Calls the signatures of a loaded SavedModel, or those that one would get.

    Args:
      signatures: functions by name, concrete or with an input signature of their own, then traced
        when they are first needed; what takes no `image_bytes` is not used.
      description: what `describe` returns.
    """

    def __init__(self, signatures: Mapping[str, Callable[..., Any]], description: str):
        self._signatures = signatures
        self._description = description

    def describe(self) -> str:
        """One line for a person."""
        return self._description

    def outputs(self, signature: str, images: Sequence[bytes]) -> dict[str, np.ndarray]:
        """Calls a signature; see `Predictor.outputs`."""
        if signature not in self._signatures:
            option = " with --attention=rollout" if signature == "attention" else ""
            raise ValueError(
                f"{self._description} has no signature {signature!r}, only "
                f"{', '.join(sorted(self._signatures))}; export it again{option}"
            )
        function = self._signatures[signature]
        if isinstance(function, tf.types.experimental.PolymorphicFunction):
            function = function.get_concrete_function()
        if "error" in function.structured_outputs:
            return _call(function, images)
        return _call_without_error(function, images)


def _call(function: Callable[..., Any], images: Sequence[bytes]) -> dict[str, np.ndarray]:
    outputs = function(image_bytes=tf.constant(images))
    return {name: value.numpy() for name, value in outputs.items()}


def _call_without_error(
    function: Callable[..., Any], images: Sequence[bytes]
) -> dict[str, np.ndarray]:
    """Of SavedModels in which a damaged image fails the batch: then each image is tried alone."""
    try:
        return {**_call(function, images), "error": np.full(len(images), b"", object)}
    except tf.errors.InvalidArgumentError:
        if len(images) == 1:
            return {**_nothing(function), "error": np.array([_undecodable(images[0])], object)}
    rows = [_call_without_error(function, [image]) for image in images]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _nothing(function: Callable[..., Any]) -> dict[str, np.ndarray]:
    """A row of zeros and empty strings."""

    def zeros(spec: tf.TensorSpec) -> np.ndarray:
        shape = [1, *spec.shape[1:]]
        is_text = spec.dtype == tf.string
        return (
            np.full(shape, b"", object) if is_text else np.zeros(shape, spec.dtype.as_numpy_dtype)
        )

    return {name: zeros(spec) for name, spec in function.structured_outputs.items()}


def _undecodable(image: bytes) -> bytes:
    return f"not an image, or damaged ({len(image)} bytes)".encode()
