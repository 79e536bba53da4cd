"""Models in other runtimes' formats give what the SavedModel gives, or are not there."""

import dataclasses
import importlib.util
import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_exports import NAMES, write_export

from vit_tf.export import runtimes
from vit_tf.export.runtimes import all_kinds, convert, litert, load
from vit_tf.export.runtimes.base import Kind
from vit_tf.export.runtimes.conversion import read_metadata
from vit_tf.export.runtimes.served_model import ServedModel

# Largest difference of a logit as a share of the largest one; int8 is also judged by its classes.
DIFFERENCES = {
    "litert_float32": 1e-5,
    "litert_float16": 2e-3,
    "litert_dynamic_int8": 0.05,
    "litert_int8": 0.25,
    "onnx": 1e-5,
    "openvino": 1e-5,
    "openvino_bf16": 2e-2,
}
SAME_CLASSES = {"litert_dynamic_int8": 0.97, "litert_int8": 0.9, "openvino_bf16": 0.97}


def test_the_kinds_are_those_that_are_promised():
    assert set(all_kinds()) == set(DIFFERENCES)


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_logits_and_classes_are_the_saved_models(served, converted, digit_batch, kind):
    expected, found = served(digit_batch), load(converted[kind])(digit_batch)
    assert set(found) == {"logits", "probabilities"}
    difference = np.abs(found["logits"] - expected["logits"]).max()
    assert difference <= DIFFERENCES[kind] * np.abs(expected["logits"]).max()
    same = found["logits"].argmax(axis=1) == expected["logits"].argmax(axis=1)
    assert same.mean() >= SAME_CLASSES.get(kind, 1)
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, atol=1e-2)


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_any_batch_size_and_earlier_results_stay_as_they_are(converted, digit_batch, kind):
    run = load(converted[kind], num_threads=1)
    rows = np.concatenate([run(digit_batch[i : i + 1])["logits"] for i in range(3)])
    # bfloat16 sums in other orders for other batches; see DIFFERENCES
    atol = {"openvino_bf16": 0.05}.get(kind, 1e-4)
    for size in (3, 17, 2):
        outputs = run(digit_batch[:size])
        assert outputs["logits"].shape == outputs["probabilities"].shape == (size, 10)
        np.testing.assert_allclose(outputs["logits"][:3], rows[:size], rtol=0, atol=atol)


def test_half_and_int8_files_are_smaller(converted):
    size = {
        kind: (Path(converted[kind]) / litert._FILE).stat().st_size
        for kind in converted
        if kind.startswith("litert")
    }
    assert size["litert_float16"] < size["litert_float32"]
    assert size["litert_int8"] <= size["litert_dynamic_int8"] < size["litert_float32"]


@pytest.mark.parametrize("kind", [kind for kind in DIFFERENCES if kind.startswith("litert")])
def test_litert_has_built_in_operations_alone(converted, kind):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(os.path.join(converted[kind], litert._FILE))
    operations = [operation["op_name"] for operation in interpreter._get_ops_details()]
    assert operations.count("GELU") == 1 and "TANH" not in operations, "not its parts"
    assert not [name for name in operations if name.startswith("Flex") or name == "CUSTOM"]
    assert ("QUANTIZE" in operations) == (kind == "litert_int8")


def test_onnx_names_what_goes_in_and_out(converted):
    import onnxruntime

    session = onnxruntime.InferenceSession(os.path.join(converted["onnx"], "model.onnx"))
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("images", ["batch", 16, 16, 3])]
    outputs = {output.name: output.shape for output in session.get_outputs()}
    assert outputs == {"logits": ["batch", 10], "probabilities": ["batch", 10]}


@pytest.mark.parametrize("kind", DIFFERENCES)
def test_the_metadata_says_what_it_is_and_of_what(served, converted, kind):
    metadata = read_metadata(converted[kind])
    assert metadata["kind"] == kind
    assert metadata["class_names"] == NAMES
    assert metadata["preprocess"].startswith("decode|resize(16")
    assert metadata["source"]["fingerprint"] == served.fingerprint()
    assert metadata["image_shape"] == [16, 16, 3]
    assert metadata["converter"]
    assert ("opset" in metadata) == (kind == "onnx")


def test_other_images_than_the_model_takes_are_named(converted):
    run = load(converted["litert_float32"])
    message = r"takes preprocessed images float32 \[b, 16, 16, 3\], b at least 1; these are uint8"
    with pytest.raises(ValueError, match=message):
        run(np.zeros([1, 16, 16, 3], np.uint8))
    with pytest.raises(ValueError, match=r"these are float32 \[1, 8, 16, 3\]"):
        run(np.zeros([1, 8, 16, 3], np.float32))
    with pytest.raises(ValueError, match=r"these are float32 \[0, 16, 16, 3\]"):
        run(np.zeros([0, 16, 16, 3], np.float32))


@pytest.mark.parametrize(
    ("kind", "images", "error", "message"),
    [
        ("litert_flaot16", None, ValueError, "no kind 'litert_flaot16'.*mean 'litert_float16'"),
        ("litert_int8", None, ValueError, "litert_int8 takes the ranges .* give some"),
        ("onnx", [np.zeros([8, 8, 3], np.float32)], ValueError, r"float32 \[8, 8, 3\]; the model"),
        ("onnx", [np.zeros([16, 16, 3])], ValueError, "a representative image is float64"),
    ],
)
def test_what_cannot_be_converted_is_said_and_leaves_nothing(
    served, tmp_path, kind, images, error, message
):
    with pytest.raises(error, match=message):
        convert(served, kind, str(tmp_path / "out"), images)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_not_overwritten(served, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="out is there already; remove it"):
        convert(served, "litert_float32", str(tmp_path / "out"))


def test_an_extra_that_is_not_installed_is_named(served, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name)
    )
    with pytest.raises(ImportError, match=r"needs openvino, .* pip install -e '.\[openvino\]'"):
        convert(served, "openvino", str(tmp_path / "out"))


def test_a_missing_and_a_foreign_saved_model_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is no SavedModel"):
        convert(str(tmp_path / "nowhere"), "onnx", str(tmp_path / "out"))
    foreign = tmp_path / "foreign"
    tf.saved_model.save(tf.Module(), str(foreign))
    with pytest.raises(FileNotFoundError, match="foreign is no SavedModel of"):
        convert(str(foreign), "onnx", str(tmp_path / "out"))
    (foreign / "assets.extra").mkdir()
    (foreign / "assets.extra" / "model_card.json").write_text("{}")
    with pytest.raises(ValueError, match="foreign has no signature model nor preprocess; it has"):
        convert(str(foreign), "onnx", str(tmp_path / "out"))
    (foreign / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="foreign cannot be loaded"):
        convert(str(foreign), "onnx", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_model_in_bfloat16_is_refused_by_name(tmp_path):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        folder = write_export(tmp_path / "1", "vit")
    finally:
        keras.config.set_dtype_policy(policy)
    with pytest.raises(ValueError, match="computes in bfloat16; litert_float32 is converted from"):
        convert(folder, "litert_float32", str(tmp_path / "out"))


def test_a_folder_that_is_no_converted_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no metadata.json"):
        load(str(tmp_path))
    (tmp_path / "metadata.json").write_text(json.dumps({"kind": "onyx"}))
    with pytest.raises(ValueError, match="no kind 'onyx'; .* Did you mean 'onnx'"):
        load(str(tmp_path))


class Twice:
    """A runtime that runs the SavedModel itself, with logits that are a factor larger."""

    def __init__(self, factor):
        self.factor = factor

    def kind(self, **changes) -> Kind:
        made = Kind("twice", "twice", (), self.write, self.open, tolerance=1e-4)
        return dataclasses.replace(made, **changes)

    def write(self, served, folder, images):
        (Path(folder) / "model").write_text(served.folder)
        return {}

    def open(self, folder, num_threads):
        served = ServedModel((Path(folder) / "model").read_text())

        def run(images):
            outputs = served(images)
            return {**outputs, "logits": outputs["logits"] * self.factor}

        return run


@pytest.mark.parametrize("factor", [1.001, 0.999, np.nan])
def test_a_float32_model_that_differs_is_not_published(
    served, digit_batch, tmp_path, monkeypatch, factor
):
    monkeypatch.setitem(all_kinds(), "twice", Twice(factor).kind())
    with pytest.raises(RuntimeError, match="the logits of twice differ from the SavedModel's by"):
        convert(served, "twice", str(tmp_path / "out"), digit_batch)
    assert list(tmp_path.iterdir()) == []


class UnsupportedOperationError(Exception):
    """What a converter of another house raises."""


def test_what_a_runtime_cannot_take_is_said_in_one_line(served, tmp_path, monkeypatch):
    def write(served, folder, images):
        (Path(folder) / "model").write_text("half")
        raise UnsupportedOperationError("no operation Erfc\nmany\nlines")

    monkeypatch.setitem(all_kinds(), "twice", Twice(1).kind(write=write))
    message = f"twice cannot be made of the SavedModel {served.folder}: no operation Erfc$"
    with pytest.raises(RuntimeError, match=message):
        convert(served, "twice", str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("factor", "published"), [(1.1, True), (np.nan, False)])
def test_a_quantised_model_is_judged_by_its_accuracy_but_has_to_give_numbers(
    served, digit_batch, tmp_path, monkeypatch, factor, published
):
    monkeypatch.setitem(all_kinds(), "twice", Twice(factor).kind(tolerance=None))
    if published:
        convert(served, "twice", str(tmp_path / "out"), digit_batch)
        assert read_metadata(str(tmp_path / "out"))["largest_difference"] > 0.05
    else:
        with pytest.raises(RuntimeError, match="differ from the SavedModel's by nan"):
            convert(served, "twice", str(tmp_path / "out"), digit_batch)
    assert (tmp_path / "out").exists() == published


RUNTIME = """
from vit_tf.export.runtimes.base import Kind

def write(served, folder, images):
    return {"zeros": [served.image_shape[0], 10]}

def open_model(folder, num_threads):
    return lambda images: {}

KINDS = (Kind("zeros", "zeros", (), write, open_model, None),)
"""


def test_a_new_runtime_is_one_file(tmp_path, monkeypatch):
    (tmp_path / "zeros_runtime.py").write_text(RUNTIME)
    monkeypatch.setattr(runtimes, "__path__", [*runtimes.__path__, str(tmp_path)])
    all_kinds.cache_clear()
    try:
        assert "zeros" in all_kinds()
    finally:
        all_kinds.cache_clear()
