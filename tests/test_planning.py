"""Planning notes the files that are named, and makes do with what is stated about those missing."""

import os

import pytest

from vit_tf import planning
from vit_tf.checkpoints import create_model
from vit_tf.data import (
    FewShotSource,
    Input,
    RelabelledSource,
    TFDSSource,
    TFRecordSource,
)


def test_a_source_whose_size_differs_from_the_expected_one_is_refused_with_both(digits_dir):
    expected = {"expected_examples": 1437, "expected_classes": 10}
    assert TFDSSource(digits_dir, "train", **expected).num_examples == 1437
    with pytest.raises(
        ValueError, match=r"1,437 examples, but expected_examples is 1,500\..*= 1437"
    ):
        TFDSSource(digits_dir, "train", expected_examples=1500)
    with pytest.raises(ValueError, match="10 classes, but expected_classes is 11"):
        TFDSSource(digits_dir, "train", expected_classes=11)


def test_planned_sources_that_are_missing_are_of_the_expected_size(tmp_path):
    absent = tmp_path / "absent"
    with planning.planning() as files:
        source = TFDSSource(str(absent), "train", expected_examples=2000, expected_classes=7)
        train = Input(source, "decode|inception_crop(8)|value_range", batch_size=100, training=True)
        assert (train.steps_per_epoch, train.num_classes, train.image_shape) == (20, 7, (8, 8, 3))
        records = TFRecordSource(str(absent / "*.rec"), num_classes=5, num_examples=300)
        assert records.num_examples == 300
        assert FewShotSource(source, per_class=3).num_examples == 21
        relabelled = RelabelledSource(
            TFRecordSource(
                str(absent / "*.rec"),
                num_classes=5,
                num_examples=300,
                features={"image": "i", "label": "l", "filename": "f"},
            ),
            str(absent / "real.json"),
        )
        assert relabelled.multi_label and relabelled.num_examples == 300
    assert [(file.role, os.path.basename(file.name)) for file in files] == [
        ("data", "absent"),
        ("data", "*.rec"),
        ("labels", "real.json"),
    ]
    assert "make_tfrecords.py" in files[0].problem
    assert all(file.problem for file in files)


def test_outside_of_a_plan_missing_data_is_an_error(tmp_path):
    with planning.planning(), pytest.raises(FileNotFoundError):  # nothing states its size
        TFDSSource(str(tmp_path / "absent"), "train", expected_examples=2000)
    with pytest.raises(FileNotFoundError):
        TFDSSource(str(tmp_path), "train", expected_examples=2000, expected_classes=7)


def test_planned_sources_that_are_there_are_noted_as_found(digits_dir):
    with planning.planning() as files:
        assert TFDSSource(digits_dir, "train").num_examples == 1437
        TFDSSource(digits_dir, "test")
    (file,) = files
    assert file.problem is None and file.name.startswith(digits_dir)


def test_planned_weights_are_neither_downloaded_nor_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("VIT_TF_CACHE", str(tmp_path))
    with planning.planning() as files:
        model = create_model("vit_r_ti16", "augreg_in21k", num_classes=3)
        assert model.num_classes == 3 and model.image_size == (224, 224)
        create_model("vit_ti16", str(tmp_path / "absent.npz"))
        with pytest.raises(ValueError, match="augreg_in21k"):
            create_model("vit_ti16", "augreg_in21")
    tag, path = files
    assert "comes from gs://vit_models/augreg/" in tag.problem and str(tmp_path) in tag.name
    assert path.name.endswith("absent.npz") and path.problem
