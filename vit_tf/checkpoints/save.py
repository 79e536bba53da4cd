"""Writing a model's weights in a public format."""

from pathlib import PurePosixPath

import keras
import ml_dtypes
import numpy as np

from vit_tf.checkpoints.files.opening import EXTENSIONS, write_file
from vit_tf.checkpoints.names.naming import Naming
from vit_tf.checkpoints.names.namings import namings_of
from vit_tf.checkpoints.names.own import PREFIX_TOKENS, REGISTERS, weights_by_path
from vit_tf.models.arguments import check_choice
from vit_tf.models.lora import merged_model

_DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def save_checkpoint(
    model: keras.Model, path: str, *, naming: str | None = None, dtype: str = "float32"
) -> None:
    """Writes a model's weights with a public format's names, as the reference itself would.

    Args:
        model: A model of `create_model`. The weights of LoRA are written merged into the kernels.
        path: Any path that `tf.io.gfile` writes. Its extension says the kind of file: `.npz`,
            `.pth`, `.pt`, `.safetensors`, or `.keras` for the whole Keras model.
        naming: Whose names: "vision_transformer", "big_vision", "mixer", "big_transfer", "deit",
            "timm", "timm_hybrid", "timm_mixer", "timm_bit", "hugging_face", "hugging_face_deit",
            "pycls", "levit", "timm_levit", "compact_transformers", "dynamic_vit". None for the
            usual one of such a model in such a file.
        dtype: "float32", "float16" or "bfloat16".

    Raises:
        ValueError: The naming has no name for one of the model's weights, or does not exist, or
            nothing is written under such an extension.
    """
    path, model = str(path), merged_model(model)
    if path.endswith(".keras"):
        model.save(path)
        return
    check_choice("dtype", dtype, _DTYPES)
    chosen = _choose(model, path, naming)
    arrays = {
        chosen.prefix + key: array.astype(_DTYPES[dtype]) if array.dtype == np.float32 else array
        for key, array in name_weights(model, chosen).items()
    }
    write_file(path, arrays)


def name_weights(model: keras.Model, naming: Naming) -> dict[str, np.ndarray]:
    """A model's weights, float32, under a naming's keys (without its prefix).

    Raises:
        ValueError: The naming has no name for a weight.
    """
    tensors = list(naming.tensors(model))
    weights = weights_by_path(model)
    unnamed = _unnamed(model, naming)
    if unnamed:
        raise ValueError(
            f"{naming.name} files have no name for {', '.join(unnamed[:5])}"
            f"{' and others' if len(unnamed) > 5 else ''}; without naming=... one that has them is "
            "chosen."
        )
    values = {path: np.asarray(weight, np.float32) for path, weight in weights.items()}
    keys = {key for tensor in tensors for key in tensor.keys}
    slots = naming.position_slots(keys)
    arrays = {}
    if "positions/table" in values and slots is not None:
        _move_slots(values, model.position_slots, slots)
    elif naming.registers and model.position_slots:
        _add_register_rows(values, model.position_slots)
    for tensor in tensors:
        arrays |= tensor.to_file(values[tensor.weight])
    return arrays | naming.extras(model)


def _move_slots(values, ours, theirs):
    """Gives the position table the naming's number of rows before the patches."""
    table = values["positions/table"]
    if ours > theirs == 0:
        for row, token in enumerate(name for name in PREFIX_TOKENS if name in values):
            values[token] = values[token] + table[:, row : row + 1]
        values["positions/table"] = table[:, ours:]
    elif ours == 0:
        values["positions/table"] = np.pad(table, ((0, 0), (theirs, 0), (0, 0)))


def _add_register_rows(values, slots):
    """Gives registers, which have no positions here, rows of zeros behind those of the tokens."""
    if REGISTERS in values and "positions/table" in values:
        table, registers = values["positions/table"], values[REGISTERS]
        rows = [table[:, :slots], np.zeros_like(registers), table[:, slots:]]
        values["positions/table"] = np.concatenate(rows, axis=1)


def _choose(model, path, name):
    """The naming that is asked for, or the usual one among those that can hold the model."""
    namings = [naming for naming in namings_of(model) if naming.extension]
    if name is not None:
        check_choice("naming", name, [naming.name for naming in namings])
        return next(naming for naming in namings if naming.name == name)
    extension = PurePosixPath(path).suffix
    extension = ".pth" if extension == ".pt" else extension
    if extension not in EXTENSIONS:
        raise ValueError(
            f"{path}: checkpoints are written as {', '.join(EXTENSIONS)} or .keras, not as "
            f"{extension or 'a file without extension'}."
        )
    able = [naming for naming in namings if not _unnamed(model, naming)]
    if not able:
        raise ValueError(
            f"{path}: no public naming has names for all weights of this {type(model).__name__}; "
            "a .keras file holds every weight."
        )

    def rank(naming):
        kin = (naming.extension == ".npz") == (extension == ".npz")  # of JAX, or of torch
        return naming.extension == extension, kin, naming.suits(model)

    return max(able, key=rank)


def _unnamed(model, naming):
    return sorted(set(weights_by_path(model)) - {t.weight for t in naming.tensors(model)})
