"""Labels out of a file: matched by file name, all of them checked before anything is read."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf
import tiny_records
from tiny_records import foreign_example, png, real_labels

from vit_tf.data.input import Input
from vit_tf.data.mixture import MixtureSource
from vit_tf.data.relabelled import RelabelledSource
from vit_tf.data.subsets import FewShotSource, Subset
from vit_tf.data.survey import survey
from vit_tf.data.tfds_source import TFDSSource
from vit_tf.data.tfrecord_source import TFRecordSource

PLAIN = "decode|central_crop(8)"
NAMES = ["a/0.png", "a/1.png", "b/2.png"]


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> TFDSSource:
    """Images 0 to 6, named as ImageNet's validation images are."""
    folder = tiny_records.write_real(tmp_path_factory.mktemp("real"), {"validation": [4, 3]})
    return TFDSSource(folder, "validation", label_feature="original_label")


@pytest.fixture
def foreign(tmp_path):
    """`foreign(names, **options)`: images 0, 1, ... of these names, all with label 0."""

    def make(names=NAMES, **options) -> TFRecordSource:
        records = [foreign_example(png(i), 0, name) for i, name in enumerate(names)]
        path = tiny_records.write_records(tmp_path / "shard", records)
        return TFRecordSource(path, 5, tiny_records.FOREIGN_FEATURES, **options)

    return make


@pytest.fixture
def write(tmp_path):
    """`write(content, name="labels.json")`: the path of a label file; JSON unless it is text."""

    def make(content, name="labels.json") -> str:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return make


def labels_of(source) -> list:
    data = Input(source, PLAIN, source.num_examples, training=False)
    labels = next(data().as_numpy_iterator())["label"]
    return labels.tolist() if labels.ndim == 1 else [np.flatnonzero(row).tolist() for row in labels]


class TestFiles:
    def test_a_list_is_for_imagenets_validation_images_in_order(self, real, write):
        labels = [[4, 0], [], [2], [1], [0], [3, 2, 1], [2], [0]]  # one is for no image
        source = RelabelledSource(real, write(labels, "real.json"))
        assert source.multi_label
        assert labels_of(source) == [sorted(each) for each in labels[:7]]
        assert source.name == f"{real.name}, labels of real.json"

    def test_it_equals_the_labels_in_tfds_records(self, real, write):
        source = RelabelledSource(real, write([real_labels(i) for i in range(7)]))
        assert labels_of(source) == [sorted(real_labels(i)) for i in range(7)]

    def test_an_object_by_file_name(self, foreign, write):
        labels = {"2.png": 4, "x/0.png": 1, "1.png": [2, 3]}
        source = RelabelledSource(foreign(), write(labels))
        assert labels_of(source) == [[1], [2, 3], [4]]

    def test_one_label_each_makes_a_source_with_one_label(self, foreign, write):
        source = RelabelledSource(foreign(), write({"2.png": 4, "0.png": 1, "1.png": 1}))
        assert not source.multi_label and labels_of(source) == [1, 1, 4]
        text = "filename,label\n0.png,1\n1.png,4\n2.png,1\n"
        source = RelabelledSource(foreign(), write(text, "labels.csv"))
        assert labels_of(source) == [1, 4, 1]
        many = foreign([f"{i}.png" for i in range(10)])
        relabelled = RelabelledSource(many, write({f"{i}.png": i // 2 for i in range(10)}))
        assert labels_of(FewShotSource(relabelled, 2)) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]

    def test_csv_with_several_labels_and_none(self, foreign, write):
        text = "\ufefffilename,label\r\n0.png,3 1\r\n1.png,\r\n\r\n2.png,0\r\n"
        source = RelabelledSource(foreign(), write(text, "labels.csv"))
        assert labels_of(source) == [[1, 3], [], [0]]

    def test_classes_by_name(self, foreign, write):
        source = foreign(class_names=["ant", "bee", "red fox", "cat", "dog"])
        labels = write({"0.png": ["dog", 0], "1.png": [], "2.png": "red fox"})
        assert labels_of(RelabelledSource(source, labels)) == [[0, 4], [], [2]]
        text = "filename,label\n0.png,dog ant\n1.png,red fox\n2.png,1\n"
        labelled = RelabelledSource(source, write(text, "labels.csv"))
        assert labels_of(labelled) == [[0, 4], [2], [1]]

    @pytest.mark.parametrize(
        ("content", "problems"),
        [
            (
                [[0], [5], [1, -1], 2],
                "2 of 4 entries are not right:\n  ILSVRC2012_val_00000002.JPEG: label 5 is outside "
                "0..4\n  ILSVRC2012_val_00000003.JPEG: label -1 is outside 0..4",
            ),
            ({"0.png": [1, 2.0]}, "0.png: 2.0 is not a label (an integer or a class name)"),
            ({"0.png": True}, "0.png: true is not a label"),
            ({"0.png": None}, "0.png: null is not a label"),
            ({"0.png": [[1]]}, "0.png: [1] is not a label"),
            ({"0.png": "catt"}, "'catt' is not among the 5 class names. Did you mean 'cat'?"),
            ('"cat"', "holds a JSON str; a list of lists of labels or an object"),
            ("{}", "names no file"),
            ("[[1], [2", "labels.json is not JSON in UTF-8: "),
            ('{"0.png": 1, "0.png": 2}', "names 1 files more than once"),
        ],
    )
    def test_wrong_json_is_refused(self, foreign, write, content, problems):
        source = foreign(class_names=tiny_records.CLASSES)
        with pytest.raises(ValueError, match=re.escape(problems)):
            RelabelledSource(source, write(content))

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("0.png,1\n", "must begin with the line filename,label; it begins with 0.png,1"),
            ("", "it begins with nothing"),
            ("filename,label\n0.png,1,2\n1.png\n", "2 lines do not have two fields"),
            ("filename,label\n0.png,1\n0.png,2\n", "names 1 files more than once"),
            ("filename,label\n0.png,1.5\n", "0.png: '1.5' is a name, but the source has no class"),
        ],
    )
    def test_wrong_csv_is_refused(self, foreign, write, text, problem):
        with pytest.raises(ValueError, match=re.escape(problem)):
            RelabelledSource(foreign(), write(text, "labels.csv"))

    def test_other_and_missing_files_are_refused(self, foreign, write, tmp_path):
        with pytest.raises(FileNotFoundError, match="none.json: no such label file"):
            RelabelledSource(foreign(), f"{tmp_path}/none.json")
        with pytest.raises(ValueError, match="a label file is .json or .csv, not .npy"):
            RelabelledSource(foreign(), write("", "labels.npy"))
        (tmp_path / "labels.csv").write_bytes(b"filename,label\n\xff\xfe,1\n")
        with pytest.raises(ValueError, match="labels.csv is not CSV in UTF-8"):
            RelabelledSource(foreign(), f"{tmp_path}/labels.csv")


class TestMatching:
    def test_every_record_must_be_in_the_file(self, real, write):
        message = (
            "has no labels for 5 of the 7 records of tiny/1.0.0 validation (its names are like "
            "'ILSVRC2012_val_00000001.JPEG'), first:\n"
        )
        with pytest.raises(ValueError, match=re.escape(message)) as raised:
            RelabelledSource(real, write([[0], [1]]))
        lines = str(raised.value).splitlines()[1:]
        assert lines[0].endswith("00000-of-00002 record 2: ILSVRC2012_val_00000003.JPEG")
        assert lines[2].endswith("00001-of-00002 record 0: ILSVRC2012_val_00000005.JPEG")
        assert len(lines) == 5

    def test_records_without_a_name_are_missing_too(self, foreign, write):
        with pytest.raises(ValueError, match="1 of the 2 records.*\n.*record 1: no file name"):
            RelabelledSource(foreign(["0.png", ""]), write({"0.png": 1}))

    def test_a_source_without_file_names_is_told_how_to_have_them(self, foreign, write):
        source = TFRecordSource(foreign().segments[0].path, 5)
        with pytest.raises(ValueError, match="have no file names to find in .*labels.json. Foreig"):
            RelabelledSource(source, write({"0.png": 1}))

    def test_names_in_several_folders_are_compared_whole(self, foreign, write):
        source = foreign(["a/0.png", "b/0.png"])
        assert labels_of(RelabelledSource(source, write({"b/0.png": 1, "a/0.png": 2}))) == [2, 1]
        message = "does not tell 1 records .*\n.*record 1: b/0.png, and a/0.png"
        with pytest.raises(ValueError, match=message):
            RelabelledSource(source, write({"0.png": 1}))

    def test_of_part_of_a_source(self, real, write):
        labels = write([[4], [], [2], [1], [0], [3], [2]])
        assert labels_of(RelabelledSource(Subset(real, [1, 5], "some"), labels)) == [[], [3]]
        assert labels_of(Subset(RelabelledSource(real, labels), [1, 5], "some")) == [[], [3]]
        mixture = MixtureSource([real, RelabelledSource(real, labels)])
        expected = [[i % 5] for i in range(7)] + [[4], [], [2], [1], [0], [3], [2]]
        assert labels_of(mixture) == expected
        assert survey(mixture).class_counts.sum() == 13


class TestBadRecords:
    def damaged(self, foreign, write):
        """Of three records the second is cut, the third a broken image with a label outside."""
        broken = foreign_example(b"\xff\xd8 nothing \xff\xd9", 77, "2.png")
        source = foreign()
        path = source.segments[0].path
        records = [foreign_example(png(0), 0, "0.png"), b"garbage", broken]
        tiny_records.write_records(path, records)
        source = TFRecordSource(path, 5, tiny_records.FOREIGN_FEATURES)
        return RelabelledSource(source, write({"0.png": [3, 4], "2.png": 1}))

    def test_what_cannot_be_parsed_is_left_to_the_input(self, foreign, write):
        source = self.damaged(foreign, write)
        data = Input(source, PLAIN, 3, training=False)
        assert "record 1: not a tf.train.Example" in data.diagnose()
        data = Input(source, PLAIN, 3, training=False, on_bad_record="skip")
        batch = next(data().as_numpy_iterator())
        np.testing.assert_array_equal(batch["label"], [[0, 0, 0, 1, 1], [0] * 5, [0] * 5])
        np.testing.assert_array_equal(batch["mask"], [1, 0, 0])
        path = source.segments[0].path
        assert data.skipped == {  # read in parallel, so noted in either order
            f"{path} record 1": "not a tf.train.Example",
            f"{path} record 2": "corrupt JPEG (13 bytes) (2.png)",
        }
        assert [bad.record for bad in survey(source).bad] == [1, 2]

    def test_what_cannot_be_read_is_too(self, foreign, write):
        source = foreign()
        path = source.segments[0].path
        with open(path, "rb") as file:
            content = bytearray(file.read())
        content[len(content) // 2] ^= 1  # inside the second record
        with open(path, "wb") as file:
            file.write(content)
        source = RelabelledSource(source, write({"0.png": 3, "1.png": 2, "2.png": 1}))
        data = Input(source, PLAIN, 2, training=False, on_bad_record="skip")
        assert next(data().as_numpy_iterator())["label"].tolist() == [3, 1]
        with pytest.raises(tf.errors.DataLossError):
            list(Input(source, PLAIN, 2, training=False)())
