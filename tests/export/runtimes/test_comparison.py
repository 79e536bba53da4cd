"""The table of kinds is what was measured on the whole split."""

import json
from pathlib import Path

import numpy as np
import pytest

from vit_tf.export.runtimes import comparison_table, load, variants
from vit_tf.export.runtimes.comparison import split_batches


@pytest.fixture(scope="module")
def folders(converted):
    return [converted[kind] for kind in ("litert_float32", "litert_int8", "onnx")]


@pytest.fixture(scope="module")
def measured(served, folders, digits_test, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared")
    rows = variants.compare_kinds(served, str(out), folders, digits_test, batch_size=50)
    return {row.name: row for row in rows}, out


@pytest.fixture(scope="module")
def split(served, digits_test):
    parts = list(split_batches(served, digits_test, 32)())
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def test_every_image_of_the_split_counts_once(measured, split):
    rows, _ = measured
    assert {row.images for row in rows.values()} == {360} == {len(split[1])}


def test_figures_are_those_of_the_outputs(measured, served, split, folders):
    rows, _ = measured
    images, labels = split
    expected = served(images)["logits"]
    assert rows["saved_model"].accuracy == (expected.argmax(axis=1) == labels).mean()
    found = load(folders[1])(images)["logits"]
    row = rows["litert_int8"]
    assert row.accuracy == (found.argmax(axis=1) == labels).mean()
    assert row.agreement == (found.argmax(axis=1) == expected.argmax(axis=1)).mean() < 1
    np.testing.assert_allclose(row.largest_difference, np.abs(found - expected).max(), rtol=1e-3)


def test_float32_kinds_have_the_saved_models_accuracy(measured):
    rows, _ = measured
    for kind in ("litert_float32", "onnx"):
        assert rows[kind].accuracy == rows["saved_model"].accuracy
        assert rows[kind].agreement == 1
        assert rows[kind].largest_difference < 1e-4


def test_the_table_and_the_json_hold_a_row_for_each(measured, folders):
    rows, out = measured
    lines = comparison_table(list(rows.values())).splitlines()
    assert len(lines) == 2 + 1 + 3
    assert lines[2].startswith("| saved_model | 0.")
    assert "| 100.00 % |" in lines[2]
    written = json.loads((out / "comparison.json").read_text())
    assert [row["name"] for row in written["rows"]] == list(rows)
    assert all(row["images_per_second"] > 0 for row in written["rows"])
    size = sum(file.stat().st_size for file in Path(folders[0]).iterdir())
    assert rows["litert_float32"].megabytes == size / 1e6


def test_what_was_made_of_the_same_saved_model_is_kept(served, folders):
    said = []
    out = Path(folders[0]).parent
    before = (out / "onnx" / "model.onnx").stat().st_mtime_ns
    assert variants.convert_kinds(served, str(out), ["onnx"], say=said.append) == [
        str(out / "onnx")
    ]
    assert (out / "onnx" / "model.onnx").stat().st_mtime_ns == before
    assert said == [f"onnx: {out / 'onnx'} is there already"]


def test_a_data_set_of_other_classes_is_refused(served, digits_test, monkeypatch):
    monkeypatch.setitem(served.card, "class_names", ["ant", "bee"])
    with pytest.raises(ValueError, match="has 10 classes, and the model 2"):
        split_batches(served, digits_test, 16)
