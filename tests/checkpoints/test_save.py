"""What is saved in a public format is what was loaded from it."""

import golden
import numpy as np
import pytest

import vit_tf
from vit_tf.checkpoints.files.opening import open_file
from vit_tf.checkpoints.names.namings import below, find_root

CASES = [case for case in golden.find_cases() if case.checkpoints]
FILES = [
    pytest.param(case, path, id=f"{case.folder.name}/{path.name}")
    for case in CASES
    for path in case.checkpoints
    if "posemb_resize" not in case.folder.name
]


def _contents(path):
    """The arrays of a file below its root, under the current spelling of its keys."""
    with open_file(str(path)) as file:
        naming, root = find_root(file)
        arrays = naming.tidy(below(file, root))
        return naming, {key: np.asarray(array.read()) for key, array in arrays.items()}


@pytest.mark.parametrize(("case", "path"), FILES)
def test_a_round_trip_keeps_every_array(case, path, tmp_path):
    naming, stored = _contents(path)
    config = golden.configuration(case.meta)
    if "position_includes_class_token" in config:  # as the file has it, not as its project today
        config["position_includes_class_token"] = naming.name == "vision_transformer"
    model = vit_tf.create_model(config.pop("name"), **config)
    vit_tf.load_checkpoint(model, str(path), strict=True)
    floats = [a for a in stored.values() if not np.issubdtype(a.dtype, np.integer)]
    dtype = "float32" if all(a.dtype == np.float32 for a in floats) else "bfloat16"
    written = tmp_path / f"written{path.suffix}"
    vit_tf.save_checkpoint(model, str(written), naming=naming.name, dtype=dtype)

    again, arrays = _contents(written)
    assert again is naming
    stored = {key: array for key, array in stored.items() if not naming.ignored(key)}
    assert {key for key in arrays if not naming.ignored(key)} == set(stored)
    for key, array in stored.items():
        assert arrays[key].dtype == array.dtype, key
        np.testing.assert_array_equal(arrays[key].reshape(array.shape), array, err_msg=key)


@pytest.mark.parametrize("extension", ["npz", "pth", "safetensors"])
@pytest.mark.parametrize("case", [c.folder.name for c in CASES if "posemb" not in c.folder.name])
def test_every_model_is_written_as_every_kind_of_file(case, extension, tmp_path):
    case = next(c for c in CASES if c.folder.name == case)
    config = golden.configuration(case.meta)
    name = config.pop("name")
    model = vit_tf.create_model(name, **config)
    vit_tf.load_checkpoint(model, str(case.checkpoints[0]), strict=True)
    path = str(tmp_path / f"file.{extension}")
    vit_tf.save_checkpoint(model, path)
    again = vit_tf.create_model(name, **config)
    vit_tf.load_checkpoint(again, path, strict=True)
    for weight, other in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(weight, other, err_msg=weight.path)
