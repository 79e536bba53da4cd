"""The check that a SavedModel serves what was evaluated, bit for bit."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vit_tf.data.preprocess import Preprocess
from vit_tf.export.example_images import ExampleImages
from vit_tf.export.forms import Form, Predict
from vit_tf.export.row_errors import encoded_example
from vit_tf.export.saved_model_folder import read_signatures
from vit_tf.export.served_outputs import served_outputs

Outputs = dict[str, np.ndarray]

# Largest difference between an accelerator's outputs and the CPU's as a share of the largest value,
# by compute dtype: their kernels sum in another order, and round sums to 24 bits in float32
# (TF32 multiplies with 11), 11 in float16, 8 in bfloat16.
TOLERANCES = {"float64": 1e-4, "float32": 5e-3, "float16": 1e-2, "bfloat16": 5e-2}
_CHECKED_EXAMPLES = 32
_ORDER = {"preprocess": 0, "serving_default": 1}
_FEW = 4  # of these, for the signatures that share what `serving_default` computes


class Examples(NamedTuple):
    """Images to check with: encoded, and as evaluation preprocesses them [images, h, w, c]."""

    encoded: list[bytes]
    images: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Case:
    """A call of a signature, and what evaluation says to its images."""

    signature: str
    arguments: Mapping[str, np.ndarray]
    expected: Outputs


def check_served(
    saved_model: str,
    predict: Predict,
    examples: Examples,
    preprocess: Preprocess,
    class_names: Sequence[str],
    compute_dtype: str = "float32",
    features: Mapping[str, Predict] | None = None,
    forms: Mapping[str, Form] | None = None,
) -> dict[str, Any]:
    """Compares all signatures, called in a fresh process without `vit_tf`, with the evaluation.

    Compared are images of the evaluation, as its own pipeline preprocesses them, and what the model
    makes of these in a `tf.function`, in batches of the size that is served. On the CPU everything
    must be equal to the last bit, in float32 as in bfloat16. Other batches would not be: kernels
    split their sums by the shapes; nor calls outside of a graph, which TensorFlow does not rewrite.
    If this process has an accelerator, its outputs must agree with those of the CPU within
    `TOLERANCES`.

    Args:
      saved_model: folder of the SavedModel.
      predict: images as the evaluation preprocesses them -> `"logits"` and `"probabilities"`.
      examples: the evaluation's first images; see `first_examples`.
      preprocess: the evaluation's.
      class_names: a name a class.
      compute_dtype: what the model computes in.
      features: such functions for the signatures `embed` and `attention`.
      forms: by the name of a signature, another form that it serves.

    Returns:
      For the model card: `"images"`, how many; `"signatures"`, the names;
      `"largest_difference"` of a value of the CPU, 0.0, and if there is an accelerator its
      `"largest_difference_of_accelerator"`.

    Raises:
      RuntimeError: if an output differs, naming it, or the process fails.
    """
    encoded, images = examples
    functions = {
        "predict": _Evaluated(predict, compute_dtype),
        "preprocess": lambda given: {"images": given},
        **{n: _Evaluated(f, compute_dtype) for n, f in (features or {}).items()},
        **{n: _Evaluated(f.predict, compute_dtype) for n, f in (forms or {}).items()},
    }
    # What others build on first: its difference explains theirs.
    names = sorted(read_signatures(saved_model), key=lambda name: (_ORDER.get(name, 2), name))
    cases = []
    for name in names:
        seen = images
        if name in (forms or {}):
            of_form = ExampleImages(encoded[:_FEW], forms[name].preprocess)
            seen = next(iter(of_form()))["image"].numpy()
        cases += _cases(name, functions, encoded, seen, preprocess)
    calls = [(case.signature, case.arguments) for case in cases]
    largest = 0.0
    for case, outputs in zip(cases, served_outputs(saved_model, calls), strict=True):
        largest = max(largest, _compare(case, outputs, preprocess))
        if "top_ids" in outputs:
            _check_top(case.signature, outputs, class_names)
    found = {"images": len(encoded), "signatures": names, "largest_difference": largest}
    apart = [f.of_accelerator for f in functions.values() if isinstance(f, _Evaluated)]
    if any(value is not None for value in apart):
        found["largest_difference_of_accelerator"] = max(v for v in apart if v is not None)
    return found


class _Evaluated:
    """A function of preprocessed images as evaluation runs it, its outputs on the CPU.

    Attributes:
      of_accelerator: how far the outputs of this process' accelerator were from them; None without.
    """

    def __init__(self, function: Predict, compute_dtype: str):
        self._function = function
        self._on_cpu = tf.function(function)
        self._tolerance = TOLERANCES[compute_dtype]
        self.of_accelerator: float | None = None

    def __call__(self, images: np.ndarray) -> Outputs:
        if all(device.device_type == "CPU" for device in tf.config.list_logical_devices()):
            return _numpy(self._on_cpu(tf.constant(images)))
        with tf.device("CPU:0"):
            outputs = _numpy(self._on_cpu(tf.constant(images)))
        self._compare(outputs, _numpy(tf.function(self._function)(tf.constant(images))))
        return outputs

    def _compare(self, outputs: Outputs, of_accelerator: Outputs) -> None:
        for name, values in outputs.items():
            found = _difference(of_accelerator[name], values)
            allowed = self._tolerance * max(1.0, float(np.abs(values).max()))
            if not found <= allowed:
                raise RuntimeError(
                    f"the model's {name} on this machine's accelerator differ from those on its "
                    f"CPU, as it is served, by {found:.3g} (allowed: {allowed:.3g}); the "
                    "SavedModel was not published"
                )
            self.of_accelerator = max(self.of_accelerator or 0.0, found)


def first_examples(evaluation_input: Any) -> Examples:
    """The first images of a `vit_tf.data.Input` that are not skipped.

    Raises:
      ValueError: if they cannot be read.
    """
    try:
        batch = next(iter(evaluation_input()))
        records = evaluation_input.encoded().take(evaluation_input.batch_size)
        encoded = {int(record["index"]): record["image"].numpy() for record in records}
    except tf.errors.OpError as error:
        raise ValueError(evaluation_input.diagnose() or error.message) from error
    rows = np.flatnonzero(batch["mask"])[:_CHECKED_EXAMPLES]
    if not len(rows):
        raise ValueError("the first evaluation batch holds no readable image to check against")
    chosen = [encoded[index] for index in batch["index"].numpy()[rows]]
    return Examples(chosen, batch["image"].numpy()[rows])


def _cases(
    signature: str,
    functions: Mapping[str, Callable[[Any], Outputs]],
    encoded: Sequence[bytes],
    images: np.ndarray,
    preprocess: Preprocess,
) -> list[_Case]:
    """The calls of a signature: `serving_default` with all images, others with a few."""
    function = functions.get(signature, functions["predict"])
    if signature != "serving_default":
        encoded, images = encoded[:_FEW], images[:_FEW]
    if signature in ("image", "image_float"):  # one by one, since their sizes may differ
        dtype = np.uint8 if signature == "image" else np.float32
        cases = []
        for image, evaluated in zip(encoded, images, strict=True):
            pixels, evaluated = _decoded(image, evaluated, preprocess)
            arguments = {"images": pixels[None].astype(dtype)}
            cases.append(_Case(signature, arguments, function(evaluated[None])))
        return cases
    arguments = {"image_bytes": np.array(encoded, object)}
    if signature == "tf_example":
        arguments = {"examples": np.array([encoded_example(image) for image in encoded], object)}
    elif signature == "model":
        arguments = {"images": images}
    return [_Case(signature, arguments, function(images))]


def _decoded(
    encoded: bytes, evaluated: np.ndarray, preprocess: Preprocess
) -> tuple[np.ndarray, np.ndarray]:
    """An image's pixels, and what evaluation makes of them.

    An op that decodes no more of a JPEG than it crops to has no pixels to hand over, and at the
    crop's border other ones than a whole decoding: then it is that which is preprocessed.
    """
    first, _, _ = str(preprocess).partition("|")
    plain = first.partition("(")[0] == "decode"
    decode = Preprocess(first if plain else f"decode({evaluated.shape[-1]})")
    pixels = decode.image_from_bytes(encoded).numpy().astype(np.uint8)
    return pixels, evaluated if plain else preprocess.image_from_pixels(pixels).numpy()


def _compare(case: _Case, outputs: Outputs, preprocess: Preprocess) -> float:
    """The largest difference from what is expected.

    Raises:
      RuntimeError: if an output is not the expected one, or an image was not read.
    """
    errors = [error.decode() for error in outputs.get("error", ()) if error]
    if errors:
        raise RuntimeError(
            f"the SavedModel (signature {case.signature}) does not read an image that evaluation "
            f"reads: {errors[0]}; it was not published"
        )
    largest = 0.0
    for name, expected in case.expected.items():
        found = _difference(outputs[name], expected)
        if not np.array_equal(outputs[name], expected):
            raise RuntimeError(
                f"the SavedModel's {name} (signature {case.signature}) differ from the evaluated "
                f"ones by {found:.3g} on {len(expected)} evaluation images, and should be equal "
                f"bit for bit; it was not published. Preprocessing: {preprocess}"
            )
        largest = max(largest, found)
    return largest


def _difference(values: np.ndarray, expected: np.ndarray) -> float:
    """The largest; not a number if shapes differ or values are none."""
    if values.shape != expected.shape:
        return float("nan")
    return float(np.abs(values - expected).max(initial=0.0))


def _check_top(name: str, outputs: Outputs, class_names: Sequence[str]) -> None:
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


def _numpy(tensors: Mapping[str, tf.Tensor]) -> Outputs:
    return {name: tensor.numpy() for name, tensor in tensors.items()}
