"""Exported models in other runtimes' formats: written, checked, and opened again."""

import json
import os
from collections.abc import Iterable, Sequence

import numpy as np

from vit_tf.export.numbered_folder import writing_folder
from vit_tf.export.runtimes.base import Kind, Run
from vit_tf.export.runtimes.registry import get_kind
from vit_tf.export.runtimes.served_model import ServedModel

_METADATA = "metadata.json"
_CHECKED_IMAGES = 32


def convert(
    saved_model: str | ServedModel,
    kind: str,
    output: str,
    representative: Iterable[np.ndarray] | None = None,
) -> str:
    """Converts a SavedModel of `export_saved_model`, and runs the result before it is seen.

    The model alone is converted, from its signature `model`: images have to be preprocessed as
    `metadata.json` says, or by the signature `preprocess`.

    Args:
      saved_model: folder of the SavedModel, or of numbered ones, of which the newest is taken; or
        one that is loaded already.
      kind: a name of `all_kinds()`, such as `litert_float16`.
      output: folder to make, with the runtime's files and `metadata.json`.
      representative: preprocessed images, float32 [height, width, channels]. `litert_int8` takes
        the ranges of its activations from them; every kind is compared with the SavedModel on the
        first 32, or on noise where there are none.

    Returns:
      `output`.

    Raises:
      ValueError: if `kind` is unknown, the SavedModel is a foreign one or computes in half
        precision, or images are missing or of another shape.
      FileNotFoundError: if there is no SavedModel.
      FileExistsError: if `output` is there already.
      ImportError: if the runtime is not installed.
      RuntimeError: if the runtime cannot take the model, or the model's outputs differ from the
        SavedModel's by more than the kind's tolerance.
      OSError: if it cannot be written. Whatever is raised, nothing is left at `output`.
    """
    found = get_kind(kind)
    found.require()
    served = saved_model if isinstance(saved_model, ServedModel) else ServedModel(saved_model)
    served.check_float32(kind)
    images = _checked_images(served, representative)
    if found.needs_images and not images:
        raise ValueError(
            f"{kind} takes the ranges of its activations from images; give some (--data_dir)"
        )
    with writing_folder(output) as aside:
        os.makedirs(aside)
        facts, run = _write_and_open(found, served, aside, images)
        difference = _check(found, served, run, images)
        metadata = {
            "kind": kind,
            "model": served.card["model"],
            "preprocess": served.card["preprocess"],
            "class_names": served.card["class_names"],
            "image_shape": served.image_shape,
            "source": {"saved_model": served.folder, "fingerprint": served.fingerprint()},
            "largest_difference": difference,
            **facts,
        }
        with open(os.path.join(aside, _METADATA), "w", encoding="utf-8") as file:
            json.dump(metadata, file, indent=1)
    return output


def load(path: str, num_threads: int | None = None) -> Run:
    """Opens a model that `convert` wrote.

    Args:
      path: the folder.
      num_threads: how many to compute with; all processors by default.

    Returns:
      A function of preprocessed images float32 [b, height, width, channels], any b from 1 on,
      which returns `logits` and `probabilities`, float32 [b, classes]. It raises ValueError for
      other images.

    Raises:
      FileNotFoundError: if `convert` did not write `path`.
      ValueError: if its kind is not known here.
      ImportError: if the runtime is not installed.
    """
    metadata = read_metadata(path)
    kind = get_kind(metadata["kind"])
    kind.require()
    run = kind.open(path, num_threads or _all_threads())
    shape = tuple(metadata["image_shape"])

    def run_checked(images: np.ndarray) -> dict[str, np.ndarray]:
        images = np.ascontiguousarray(images)
        if images.dtype != np.float32 or images.shape[1:] != shape or not len(images):
            raise ValueError(
                f"{kind.name} takes preprocessed images float32 [b, {', '.join(map(str, shape))}], "
                f"b at least 1; these are {images.dtype} {list(images.shape)}"
            )
        return run(images)

    return run_checked


def read_metadata(path: str) -> dict[str, object]:
    """Returns what `convert` wrote of a model: kind, preprocessing, class names, source.

    Raises:
      FileNotFoundError: if `convert` did not write `path`.
    """
    try:
        with open(os.path.join(path, _METADATA), encoding="utf-8") as file:
            return json.load(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"{path} is no model of tools/convert_export.py: it has no {_METADATA}"
        ) from error


def _all_threads() -> int:
    return len(os.sched_getaffinity(0))


def _checked_images(
    served: ServedModel, representative: Iterable[np.ndarray] | None
) -> list[np.ndarray]:
    images = list(representative) if representative is not None else []
    for image in images:
        if image.shape != served.image_shape or image.dtype != np.float32:
            raise ValueError(
                f"a representative image is {image.dtype} {list(image.shape)}; the model takes "
                f"preprocessed images float32 {list(served.image_shape)}"
            )
    return images


def _write_and_open(
    kind: Kind, served: ServedModel, folder: str, images: Sequence[np.ndarray]
) -> tuple[dict[str, object], Run]:
    """Returns the kind's facts and the model ready to run.

    Raises:
      RuntimeError: for whatever a runtime says that it cannot do.
      OSError: if it cannot be written.
    """
    try:
        return kind.write(served, folder, images), kind.open(folder, _all_threads())
    except OSError:
        raise
    except Exception as error:  # each converter and runtime has exceptions of its own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise RuntimeError(
            f"{kind.name} cannot be made of the SavedModel {served.folder}: {reason}"
        ) from error


def _check(kind: Kind, served: ServedModel, run: Run, images: Sequence[np.ndarray]) -> float:
    """Returns the largest difference of a logit, as a share of the largest logit.

    Raises:
      RuntimeError: if it is larger than the kind's tolerance, or no number.
    """
    noise = np.random.default_rng(0).uniform(-1, 1, (4, *served.image_shape))
    batch = np.stack(images[:_CHECKED_IMAGES]) if images else noise.astype(np.float32)
    expected = served(batch)
    scale = max(1.0, float(np.abs(expected["logits"]).max()))
    allowed = np.inf if kind.tolerance is None else kind.tolerance
    largest = 0.0
    for size in (1, len(batch)):  # any batch size
        outputs = run(batch[:size])
        for name, unit in (("logits", scale), ("probabilities", 1.0)):
            difference = float(np.abs(outputs[name] - expected[name][:size]).max()) / unit
            if not (difference <= allowed and np.isfinite(difference)):
                raise RuntimeError(
                    f"the {name} of {kind.name} differ from the SavedModel's by {difference:.3g} "
                    f"of the largest (allowed: {allowed:.3g}) on {size} images; it was not "
                    f"published. SavedModel: {served.folder}"
                )
            largest = max(largest, difference) if name == "logits" else largest
    return largest
