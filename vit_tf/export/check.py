"""The check that a SavedModel serves what was evaluated."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

# Largest difference as a share of the largest logit, by compute dtype. Served and evaluated outputs
# come from the same operations; only the batch they run in differs and what the graph fuses, and
# with it where sums are rounded: to 24 bits in float32, 11 in float16, 8 in bfloat16.
TOLERANCES = {"float64": 1e-4, "float32": 1e-4, "float16": 4e-3, "bfloat16": 3e-2}
_CHECKED_EXAMPLES = 32


def check_served(
    saved_model: str,
    predict: Callable[[tf.Tensor], dict[str, tf.Tensor]],
    evaluation_input: Any,
    class_names: Sequence[str],
    compute_dtype: str = "float32",
    embed: Callable[[tf.Tensor], dict[str, tf.Tensor]] | None = None,
) -> float:
    """Compares all signatures with the evaluation on its first images.

    Args:
      saved_model: folder of the SavedModel.
      predict: images as the evaluation preprocesses them -> `"logits"` and `"probabilities"`.
      evaluation_input: `vit_tf.data.Input` of the evaluation.
      class_names: a name a class.
      compute_dtype: what the model computes in; see `TOLERANCES`.
      embed: images -> what the signature `embed` returns, if there is one.

    Returns:
      The largest difference of a logit.

    Raises:
      RuntimeError: if an output differs, naming it.
      ValueError: if the evaluation's images cannot be read.
    """
    encoded, evaluated = _first_examples(
        lambda images: {**predict(images), **(embed(images) if embed else {})}, evaluation_input
    )
    channels = evaluation_input.image_shape[-1]
    signatures = tf.saved_model.load(saved_model).signatures
    served = {
        "serving_default": _numpy(signatures["serving_default"](image_bytes=tf.constant(encoded))),
        "image": _serve_pixels(signatures["image"], encoded, channels),
    }
    tolerance = TOLERANCES[compute_dtype]
    scale = max(1.0, float(np.abs(evaluated["logits"]).max()))
    difference = 0.0
    for name, outputs in served.items():
        for key, allowed in (("logits", tolerance * scale), ("probabilities", tolerance)):
            found = float(np.abs(outputs[key] - evaluated[key]).max())
            if not found <= allowed:
                raise RuntimeError(
                    f"the SavedModel's {key} (signature {name}) differ from the evaluated ones by "
                    f"{found:.3g} on {len(encoded)} evaluation images (allowed: {allowed:.3g}); it "
                    f"was not published. Preprocessing: {evaluation_input.preprocess}"
                )
            if key == "logits":
                difference = max(difference, found)
        _check_top(name, outputs, class_names)
    if embed is not None:
        served = _numpy(signatures["embed"](image_bytes=tf.constant(encoded)))
        served.pop("error", None)
        _check_embedding(served, {name: evaluated[name] for name in served}, tolerance)
    return difference


def _check_embedding(
    served: dict[str, np.ndarray], evaluated: dict[str, np.ndarray], tolerance: float
) -> None:
    """Raises RuntimeError if feature vectors differ by more than a share of their largest value."""
    for name, values in served.items():
        allowed = tolerance * max(1.0, float(np.abs(evaluated[name]).max()))
        found = float(np.abs(values - evaluated[name]).max())
        if not found <= allowed:
            raise RuntimeError(
                f"the SavedModel's {name} (signature embed) differ from the evaluated ones by "
                f"{found:.3g} (allowed: {allowed:.3g}); it was not published"
            )


def _first_examples(
    predict: Callable[[tf.Tensor], dict[str, tf.Tensor]], evaluation_input: Any
) -> tuple[list[bytes], dict[str, np.ndarray]]:
    """Encoded images and evaluated outputs of the first examples that are not skipped."""
    try:
        batch = next(iter(evaluation_input()))
        records = evaluation_input.encoded().take(evaluation_input.batch_size)
        encoded = {int(record["index"]): record["image"].numpy() for record in records}
    except tf.errors.OpError as error:
        raise ValueError(evaluation_input.diagnose() or error.message) from error
    rows = np.flatnonzero(batch["mask"])[:_CHECKED_EXAMPLES]
    if not len(rows):
        raise ValueError("the first evaluation batch holds no readable image to check against")
    evaluated = {name: values[rows] for name, values in _numpy(predict(batch["image"])).items()}
    return [encoded[index] for index in batch["index"].numpy()[rows]], evaluated


def _serve_pixels(
    signature: Callable[..., dict[str, tf.Tensor]], encoded: Sequence[bytes], channels: int
) -> dict[str, np.ndarray]:
    """Outputs for decoded images, one at a time since their sizes may differ."""
    rows = []
    for image in encoded:
        pixels = tf.io.decode_image(image, channels=channels, expand_animations=False)
        rows.append(_numpy(signature(images=pixels[None])))
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _check_top(name: str, outputs: dict[str, np.ndarray], class_names: Sequence[str]) -> None:
    """Raises RuntimeError if the named classes are not the likeliest ones."""
    ids, probabilities = outputs["top_ids"], outputs["probabilities"]
    largest = -np.sort(-probabilities, axis=1)[:, : ids.shape[1]]
    expected = {
        "top_ids": np.array_equal(np.take_along_axis(probabilities, ids, axis=1), largest),
        "top_probabilities": np.array_equal(outputs["top_probabilities"], largest),
        "top_names": np.array_equal(
            outputs["top_names"], np.array([n.encode() for n in class_names], object)[ids]
        ),
    }
    wrong = [key for key, holds in expected.items() if not holds]
    if wrong:
        raise RuntimeError(
            f"the SavedModel's {' and '.join(wrong)} (signature {name}) are not those of the "
            "likeliest classes; it was not published"
        )


def _numpy(tensors: dict[str, tf.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}
