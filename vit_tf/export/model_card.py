"""The model card of a SavedModel: what it is, what it was made of, and what it is worth."""

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from vit_tf.analysis.fingerprints import saved_graph_fingerprint, weights_fingerprint
from vit_tf.export.saved_model_folder import read_signatures

EXTRA = "assets.extra"
CARD = os.path.join(EXTRA, "model_card.json")
LABELS = os.path.join(EXTRA, "labels.txt")
_PACKAGES = ("tensorflow", "keras", "numpy")


def write_card(
    saved_model: str,
    model: keras.Model,
    evaluation_input: Any,
    class_names: Sequence[str],
    facts: Mapping[str, Any],
) -> None:
    """Writes `model_card.json` and `labels.txt`, a name a line, into `assets.extra`.

    Args:
      saved_model: folder of the SavedModel.
      model: what it was made of.
      evaluation_input: the `vit_tf.data.Input` that it was checked with.
      class_names: a name a class.
      facts: what the exporter knows besides: `"step"`, `"weights"`, `"accuracy"`, `"check"`, ...
    """
    origin = getattr(model, "origin", None)
    card = {
        "model": getattr(model, "variant", None) or type(model).__name__,
        "parameters": _parameters(model),
        "origin": dataclasses.asdict(origin) if origin else None,
        "precision": model.compute_dtype,
        "preprocess": str(evaluation_input.preprocess),
        "data": _data(evaluation_input),
        **facts,
        "signatures": _signatures(saved_model),
        "fingerprints": {
            "weights": weights_fingerprint(model),
            "graph": saved_graph_fingerprint(saved_model),
        },
        "versions": _versions(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "class_names": list(class_names),
        "config": keras.saving.serialize_keras_object(model)["config"],
    }
    tf.io.gfile.makedirs(os.path.join(saved_model, EXTRA))
    lines = "".join(" ".join(name.splitlines()) + "\n" for name in class_names)
    for place, text in ((CARD, json.dumps(card, indent=1, default=str)), (LABELS, lines)):
        with tf.io.gfile.GFile(os.path.join(saved_model, place), "w") as file:
            file.write(text)


def _parameters(model: keras.Model) -> int:
    card = getattr(model, "card", None)  # of models of `create_model`
    return card.parameters if card else sum(math.prod(w.shape) for w in model.weights)


def _data(evaluation_input: Any) -> dict[str, Any] | None:
    """The evaluation's data; None of loose images."""
    source = getattr(evaluation_input, "source", None)
    if source is None:
        return None
    named = source.dataset or {"name": source.name}
    return {**named, "examples": evaluation_input.examples_per_epoch}


def _signatures(saved_model: str) -> dict[str, dict[str, dict[str, str]]]:
    """Of each signature the inputs and outputs, as `float32 [?, 10]`; ? is any size."""
    return {
        name: {
            "inputs": {key: _tensor(signature.inputs[key]) for key in sorted(signature.inputs)},
            "outputs": {key: _tensor(signature.outputs[key]) for key in sorted(signature.outputs)},
        }
        for name, signature in read_signatures(saved_model).items()
    }


def _tensor(info: Any) -> str:
    sizes = ", ".join("?" if dim.size < 0 else str(dim.size) for dim in info.tensor_shape.dim)
    rank_known = not info.tensor_shape.unknown_rank
    return f"{tf.dtypes.as_dtype(info.dtype).name} [{sizes if rank_known else '...'}]"


def _versions() -> dict[str, str]:
    from vit_tf import __version__  # the package is not whole while its parts are imported

    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"vit_tf": __version__, **versions, "python": platform.python_version()}
