"""Examples with any number of labels: read, brought into vectors, mixed with others, refused."""

import re

import numpy as np
import pytest
import tensorflow as tf
import tiny_records
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_records import foreign_example, png, real_labels

from vit_tf.data.input import Input
from vit_tf.data.mixture import MixtureSource
from vit_tf.data.op_registry import register_op
from vit_tf.data.preprocess import Preprocess
from vit_tf.data.sources import Source
from vit_tf.data.subsets import FewShotSource, Subset
from vit_tf.data.survey import survey
from vit_tf.data.targets import Targets
from vit_tf.data.tfds_source import TFDSSource
from vit_tf.data.tfrecord_source import TFRecordSource

PLAIN = "decode|central_crop(8)"


@register_op("as_text")
def as_text():
    return lambda features: {**features, "label": tf.constant("ant")}


@register_op("next_class")
def next_class():
    return lambda features: {**features, "label": features["label"] + 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """Images 0 to 6 in two shards, a third of them without labels."""
    return tiny_records.write_real(tmp_path_factory.mktemp("real"), {"validation": [4, 3]})


@pytest.fixture(scope="module")
def real(folder) -> TFDSSource:
    return TFDSSource(folder, "validation", label_feature="real_label")


def foreign(folder, labels: list, **options) -> TFRecordSource:
    records = [foreign_example(png(i), each, f"{i}.png") for i, each in enumerate(labels)]
    path = tiny_records.write_records(folder / "train-0", records)
    return TFRecordSource(path, 5, tiny_records.FOREIGN_FEATURES, **options)


def multi_hot(labels: list[list[int]], classes: int = 5) -> np.ndarray:
    return np.array([[float(c in each) for c in range(classes)] for each in labels])


def batches(source: Source, preprocess: str = PLAIN, size: int = 4, **options) -> dict:
    data = Input(source, preprocess, size, training=False, **options)
    found = list(data().as_numpy_iterator())
    return {key: np.concatenate([batch[key] for batch in found]) for key in found[0]}


def test_a_sequence_of_class_labels_is_recognised(real):
    assert real.multi_label and real.class_names == tiny_records.CLASSES
    assert real.features["filename"] == "file_name"
    read = batches(real)
    assert read["label"].dtype == np.float32
    expected = multi_hot([real_labels(i) for i in range(7)])
    np.testing.assert_array_equal(read["label"], [*expected, np.zeros(5)])
    np.testing.assert_array_equal(read["mask"], [1] * 7 + [0])


def test_one_of_two_label_features_must_be_named(folder):
    message = (
        "2 label features: original_label (one label), real_label (several labels), among "
        "['file_name', 'image', 'original_label', 'real_label']; name the one to use with"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        TFDSSource(folder, "validation")
    one = TFDSSource(folder, "validation", label_feature="original_label")
    assert not one.multi_label
    np.testing.assert_array_equal(batches(one)["label"], [0, 1, 2, 3, 4, 0, 1, 0])
    with pytest.raises(ValueError, match="'rael_label' is no feature. Did you mean 'real_label'"):
        TFDSSource(folder, "validation", label_feature="rael_label")
    with pytest.raises(ValueError, match="label_feature = 'file_name' is a Text"):
        TFDSSource(folder, "validation", label_feature="file_name")


@settings(max_examples=25, deadline=None)
@given(labels=st.lists(st.integers(0, 4), max_size=12), onehot=st.booleans())
def test_a_vector_has_a_one_for_each_different_label(real, labels, onehot):
    targets = Targets(real, Preprocess(PLAIN + "|onehot(5)" * onehot))
    stored = tf.constant(labels, tf.int64)
    given = tf.constant(multi_hot([labels])[0]) if onehot else stored
    vector = targets(stored, given).numpy()
    assert vector.dtype == np.float32 and vector.sum() == len(set(labels))
    np.testing.assert_array_equal(vector, multi_hot([labels])[0])


class TestForeignRecords:
    LABELS = ([], [4, 2, 2], [1])

    def test_lists_of_any_length_are_read(self, tmp_path):
        source = foreign(tmp_path, self.LABELS, multi_label=True)
        np.testing.assert_array_equal(batches(source)["label"][:3], multi_hot(self.LABELS))

    def test_the_offset_is_subtracted_from_each(self, tmp_path):
        source = foreign(tmp_path, [[5, 1], [2]], multi_label=True, label_offset=1)
        np.testing.assert_array_equal(batches(source)["label"][:2], multi_hot([[4, 0], [1]]))

    def test_one_label_outside_the_classes_makes_a_record_bad(self, tmp_path):
        source = foreign(tmp_path, [[1], [2, 9], [0]], multi_label=True)
        diagnosis = Input(source, PLAIN, 3, training=False).diagnose()
        assert "record 1: label 9 is outside 0..4" in diagnosis
        read = batches(source, size=3, on_bad_record="skip")
        np.testing.assert_array_equal(read["label"], multi_hot([[1], [], [0]]))
        np.testing.assert_array_equal(read["mask"], [1, 0, 1])

    def test_undeclared_lists_are_bad_records_that_say_how_to_declare_them(self, tmp_path):
        data = Input(foreign(tmp_path, [[1], [2, 4]]), PLAIN, 2, training=False)
        assert "; 2 labels need multi_label = True. Fix" in data.diagnose()

    def test_a_misspelt_label_feature_is_no_record_without_labels(self, tmp_path):
        path = tiny_records.write_records(tmp_path / "a", [foreign_example(png(0), [1])])
        features = {"image": "image/encoded", "label": "image/class/labels"}
        with pytest.raises(ValueError, match="has no feature 'image/class/labels'"):
            TFRecordSource(path, 5, features, multi_label=True)

    def test_records_may_lack_the_feature(self, tmp_path):
        example = tf.train.Example.FromString(foreign_example(png(0), []))
        del example.features.feature["image/class/label"]
        records = [example.SerializeToString(), foreign_example(png(1), [1, 3])]
        path = tiny_records.write_records(tmp_path / "a", records)
        source = TFRecordSource(path, 5, multi_label=True)
        np.testing.assert_array_equal(batches(source, size=2)["label"], multi_hot([[], [1, 3]]))


class TestPreprocessedLabels:
    def test_onehot_of_one_label_is_a_vector(self, folder):
        source = TFDSSource(folder, "validation", label_feature="original_label")
        read = batches(source, f"{PLAIN}|onehot(7, on=0.9, off=0.01)|keep('image', 'label')")
        expected = np.where(multi_hot([[i % 5] for i in range(7)], 7), 0.9, 0.01)
        np.testing.assert_allclose(read["label"], [*expected, np.zeros(7)], rtol=1e-6)

    def test_the_input_has_as_many_classes_as_the_vector(self, real):
        data = Input(real, f"{PLAIN}|onehot(7)", 4, training=False)
        assert (data.num_classes, data.class_names) == (7, tiny_records.CLASSES)
        assert data().element_spec["label"] == tf.TensorSpec([4, 7], tf.float32)

    def test_without_a_label_all_targets_are_zero(self, real):
        read = batches(real, f"{PLAIN}|onehot(5, on=0.9, off=0.01)")
        labels = [real_labels(i) for i in range(7)]
        expected = np.where(multi_hot(labels), 0.9, 0.01)
        expected[[not each for each in labels]] = 0
        np.testing.assert_allclose(read["label"][:7], expected, rtol=1e-6)

    def test_ops_may_change_class_numbers(self, real):
        read = batches(real, f"{PLAIN}|next_class", size=3, on_bad_record="skip")
        labels = [[label + 1 for label in real_labels(i)] for i in range(7)]
        outside = [5 in each for each in labels]
        labels = [[] if 5 in each else each for each in labels] + [[], []]
        np.testing.assert_array_equal(read["label"], multi_hot(labels))
        np.testing.assert_array_equal(read["mask"][:7], np.logical_not(outside))

    @pytest.mark.parametrize("keep", ["keep('image')", "keep('image', 'label')"])
    def test_kept_or_dropped_the_label_is_the_sources(self, real, keep):
        expected = multi_hot([real_labels(i) for i in range(7)])
        np.testing.assert_array_equal(batches(real, f"{PLAIN}|{keep}")["label"][:7], expected)

    @pytest.mark.parametrize(
        ("ops", "message"),
        [
            ("onehot(5, multi=False)", r"a label is float32 \(None, 5\); Input takes"),
            ("as_text", r"a label is string \(\); Input takes one or several class numbers"),
            ("onehot(5, key_result='labels')", "makes an entry 'labels', which nobody reads"),
        ],
    )
    def test_other_forms_are_refused(self, real, ops, message):
        with pytest.raises(ValueError, match=message):
            Input(real, f"{PLAIN}|{ops}", 4, training=False)

    def test_a_depth_that_does_not_suffice_names_the_record(self, real):
        data = Input(real, f"{PLAIN}|onehot(4)", 4, training=False)
        assert "record 3: onehot(4): a label of 'label' is outside [0, 4)" in data.diagnose()


class TestOtherSources:
    def test_a_mixture_with_one_label_a_record(self, real, tmp_path):
        one = foreign(tmp_path, [3, 4], class_names=["dog", "fox", "ant", "bee", "gnu"])
        source = MixtureSource([one, real], labels="by_name")
        assert source.multi_label and source.class_names[:4] == ["dog", "fox", "ant", "bee"]
        names = [["bee"], ["gnu"]]
        names += [[tiny_records.CLASSES[label] for label in real_labels(i)] for i in range(7)]
        labels = [[source.class_names.index(name) for name in each] for each in names]
        expected = multi_hot(labels, source.num_classes)
        np.testing.assert_array_equal(batches(source, size=3)["label"], expected)

    def test_a_subset_keeps_them(self, real):
        read = batches(Subset(real, [3, 5], "some"), size=2)
        np.testing.assert_array_equal(read["label"], multi_hot([[3, 4], []]))

    def test_classes_cannot_be_weighted_nor_drawn_from(self, real):
        message = "needs examples with one label each; those of tiny/1.0.0 validation have any"
        with pytest.raises(ValueError, match=f"FewShotSource.per_class {message}"):
            FewShotSource(real, 2)
        options = {"training": True, "shuffle": "global", "class_weights": "balanced"}
        with pytest.raises(ValueError, match=f"class_weights {message}"):
            Input(real, PLAIN, 4, **options)

    def test_a_survey_counts_each_label_and_examples_without_any(self, tmp_path):
        labels = [[0, 1], [1, 1], [], [3], []]
        found = survey(foreign(tmp_path, labels, multi_label=True))
        assert found.class_counts.tolist() == [1, 2, 0, 1, 0]
        assert (found.num_unlabelled, len(found.sizes), found.bad) == (2, 5, [])
