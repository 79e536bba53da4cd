"""Training checkpoints: what `Estimator.train` leaves in `model_dir/checkpoints` and `best`.

`training/state.py` says how variables are named there.
"""

import glob
import json
import math
import os
import re

import numpy as np
import tensorflow as tf

from vit_tf.checkpoints.files.stored import CheckpointFileError, StoredArray, StoredFile
from vit_tf.models.lora import LoRA, lora_part, merge

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"  # TensorFlow's description of the objects
_PART = re.compile(r"(.+)\.(?:index|data-\d{5}-of-\d{5})")


def find_checkpoint(path: str) -> str | None:
    """The prefix of the checkpoint that a path means, or None if it means none.

    Args:
      path: a prefix, one of the files that begin with it, a folder of checkpoints, or a
        `model_dir`, which has one.
    """
    part = _PART.fullmatch(path)
    prefix = part.group(1) if part else path
    if tf.io.gfile.exists(f"{prefix}.index"):
        return prefix
    if os.path.basename(path) == "checkpoint" and tf.io.gfile.exists(path):
        path = os.path.dirname(path)
    return tf.train.latest_checkpoint(path) or tf.train.latest_checkpoint(
        os.path.join(path, "checkpoints")
    )


def read_tensorflow(path: str, prefix: str) -> StoredFile:
    """Reads the names of a training checkpoint.

    Args:
      path: as the user gave it.
      prefix: of `find_checkpoint`.

    Returns:
      The model's weights by their paths, those of LoRA merged into the kernels; the optimizer, the
      step and such are `others`.

    Raises:
      CheckpointFileError: if it is damaged, or no model was saved in it.
    """
    reader = _guarded(prefix, tf.train.load_checkpoint, prefix)
    shapes = _guarded(prefix, reader.get_variable_to_shape_map)
    dtypes = reader.get_variable_to_dtype_map()
    size = _guarded(prefix, _data_bytes, prefix)
    file = StoredFile(path, "tensorflow", {})
    for key in sorted(shapes.keys() - {_GRAPH}):
        name = key.removesuffix(_VALUE)
        if key.startswith("model/") and name != key and dtypes[key] != tf.string:
            dtype = np.dtype(dtypes[key].as_numpy_dtype)
            # TensorFlow would allocate whatever a damaged index says.
            if math.prod(shapes[key]) * dtype.itemsize > size:
                raise _damaged(prefix, f"its data files have {size} bytes, too few for {key!r}")
            array = StoredArray(tuple(shapes[key]), dtype, _read_tensor(prefix, reader, key))
            file.arrays[_unescape(name.removeprefix("model/"))] = array
        else:
            file.others.append(_unescape(name))
    if any(name.endswith("/_kernel") for name in file.arrays):
        raise CheckpointFileError(
            f"{prefix}: was written by tf.train.Checkpoint(model=model), which leaves out what a "
            "Keras 3 model keeps in lists, as all its blocks: they are not in the file. Save the "
            "model with vit_tf.save_checkpoint or model.save"
        )
    about = os.path.join(os.path.dirname(os.path.dirname(prefix)), "model.json")
    if tf.io.gfile.exists(about):  # of a `model_dir`
        with tf.io.gfile.GFile(about) as lines:
            file.model = json.load(lines)
    _merge_lora(prefix, file)
    if not file.arrays:
        raise CheckpointFileError(
            f"{prefix}: holds no variable below 'model/'; its {len(file.others)} are "
            f"{', '.join(file.others[:3])}, .... Only checkpoints that vit_tf's training wrote are "
            "read; from another program, save the weights as .npz by their names"
        )
    return file


def _merge_lora(prefix: str, file: StoredFile) -> None:
    """Puts kernels as they act in the place of those that training adapted by LoRA."""
    adapted = [name for name in file.arrays if name.endswith("/kernel")]
    adapted = [name for name in adapted if lora_part(name, "a") in file.arrays]
    settings = ((file.model or {}).get("config") or {}).pop("lora", None)
    if adapted and not settings:
        raise CheckpointFileError(
            f"{prefix}: has weights of LoRA ({lora_part(adapted[0], 'a')}), and no model.json in "
            "the folder above says at which scale they act; name the checkpoint where it lies in "
            "its model_dir, or copy that folder's model.json along"
        )
    for name in adapted:
        kernel, a, b = (file.arrays[n] for n in (name, *(lora_part(name, x) for x in "ab")))
        scale = LoRA(**settings).scale

        def read(kernel=kernel, a=a, b=b, scale=scale):
            return merge(kernel.read(), a.read(), b.read(), scale)

        file.arrays[name] = StoredArray(kernel.shape, kernel.dtype, read)
    for name in adapted:
        for part in "ab":
            del file.arrays[lora_part(name, part)]


def _read_tensor(prefix: str, reader, key: str):
    return lambda: np.asarray(_guarded(prefix, reader.get_tensor, key))


def _unescape(name: str) -> str:
    """Undoes TensorFlow's escapes in names: `..` was `.` and `.S` was `/`."""
    return re.sub(r"\.([.S])", lambda match: {".": ".", "S": "/"}[match.group(1)], name)


def _guarded(prefix: str, function, *arguments):
    """Calls one of TensorFlow's readers, whose errors come in many classes."""
    try:
        return function(*arguments)
    except (tf.errors.OpError, ValueError, RuntimeError, LookupError) as error:
        message = (getattr(error, "message", None) or str(error)).splitlines()[0]
        raise _damaged(prefix, message) from error


def _data_bytes(prefix: str) -> int:
    files = tf.io.gfile.glob(f"{glob.escape(prefix)}.data-*")
    return sum(tf.io.gfile.stat(file).length for file in files)


def _damaged(prefix: str, problem: str) -> CheckpointFileError:
    return CheckpointFileError(
        f"{prefix}: is a damaged or incomplete training checkpoint ({problem}); copy its .index "
        "file and all .data files together, or use one saved before it"
    )
