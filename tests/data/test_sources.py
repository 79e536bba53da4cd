"""Both layouts are read; what is wrong with a directory, split or pattern is said."""

import re

import numpy as np
import pytest
import tensorflow as tf
import tiny_records
from tiny_records import FOREIGN_FEATURES

from vit_tf.data.sources import Source
from vit_tf.data.tfds_source import TFDSSource
from vit_tf.data.tfrecord_source import TFRecordSource


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("tiny") / "1.0.0"
    folder.mkdir()
    return tiny_records.write_tfds(folder, {"train": [5, 4, 6], "test": [3]})


def read_all(source: Source) -> list[dict]:
    examples = []
    for segment in source.segments:
        dataset = tf.data.TFRecordDataset(segment.path).skip(segment.first_record)
        for serialized in dataset.take(segment.num_records):
            examples.append({k: v.numpy() for k, v in source.parse(serialized).items()})
    return examples


def assert_numbers(source: Source, numbers: range) -> None:
    examples = read_all(source)
    assert len(examples) == source.num_examples == len(numbers)
    for number, example in zip(numbers, examples, strict=True):
        decoded = tf.io.decode_png(example["image"]).numpy()
        np.testing.assert_array_equal(decoded, tiny_records.pixels(number))
        assert example["label"] == number % 5
        assert example["filename"] == f"{number}.png".encode()


def test_tfds_split_gives_every_example_in_order(tfds_folder):
    source = TFDSSource(tfds_folder, "train")
    assert_numbers(source, range(15))
    assert source.num_classes == 5
    assert source.class_names == ["ant", "bee", "cat", "dog", "elk"]
    assert source.name == "tiny/1.0.0 train"


@pytest.mark.parametrize(
    ("split", "numbers"),
    [("train[:6]", range(6)), ("train[20%:80%]", range(3, 12)), ("train[-2:]", range(13, 15))],
)
def test_sub_splits_take_exactly_their_records(tfds_folder, split, numbers):
    source = TFDSSource(tfds_folder, split)
    assert_numbers(source, numbers)
    for segment in source.segments:
        dataset = tf.data.TFRecordDataset(segment.path).skip(segment.first_record)
        here = next(iter(dataset)).numpy()
        with open(segment.path, "rb") as file:
            file.seek(segment.byte_offset + 12)
            assert file.read(len(here)) == here


def test_joined_splits(tfds_folder):
    assert TFDSSource(tfds_folder, "train+test").num_examples == 18


def test_the_highest_version_below_the_folder_is_found(tfds_folder):
    parent = tfds_folder.rsplit("/", 1)[0]
    assert TFDSSource(parent, "test").num_examples == 3
    root, name = parent.rsplit("/", 1)
    assert TFDSSource(root, "test", name=name, version="1.0.0").num_examples == 3
    with pytest.raises(FileNotFoundError, match=r"has no version 2\.0\.0; it has 1\.0\.0"):
        TFDSSource(root, "test", name=name, version="2.0.0")


def test_locate_names_file_and_record_within_the_file(tfds_folder):
    source = TFDSSource(tfds_folder, "train[3:]")
    assert source.locate(1).endswith("train.tfrecord-00000-of-00003 record 4")
    assert source.locate(2).endswith("train.tfrecord-00001-of-00003 record 0")
    assert source.locate(11).endswith("train.tfrecord-00002-of-00003 record 5")
    with pytest.raises(IndexError):
        source.locate(12)


def test_unknown_split_lists_the_splits(tfds_folder):
    message = f"{tfds_folder} has no split 'trian[:3]'; it has test, train. Did you mean 'train'?"
    with pytest.raises(ValueError, match=re.escape(message)):
        TFDSSource(tfds_folder, "trian[:3]")


def test_a_slice_beyond_the_split_says_so(tfds_folder):
    with pytest.raises(ValueError, match=r"cannot take the split 'train\[12:99\]': .*incompatible"):
        TFDSSource(tfds_folder, "train[12:99]")


def test_missing_directory_names_the_command_that_writes_one(tmp_path):
    message = (
        f"Data directory {tmp_path}/nowhere does not exist. "
        "Write shards with `python tools/make_tfrecords.py` (see its --help)."
    )
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        TFDSSource(f"{tmp_path}/nowhere", "train")


def test_empty_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"Data directory {tmp_path} is empty"):
        TFDSSource(str(tmp_path), "train")


def test_directory_of_something_else_says_what_it_holds(tmp_path):
    (tmp_path / "photos.zip").touch()
    with pytest.raises(FileNotFoundError, match=r"no dataset_info\.json\); it holds photos\.zip"):
        TFDSSource(str(tmp_path), "train")


def test_missing_shard_is_noticed_before_reading(tmp_path):
    folder = tiny_records.write_tfds(tmp_path, {"train": [2, 2]})
    (tmp_path / "tiny-train.tfrecord-00001-of-00002").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 2 files of split 'train' are missing, first"):
        TFDSSource(folder, "train")


def test_other_file_formats_are_refused(tmp_path):
    folder = tiny_records.write_tfds(tmp_path, {"train": [2]})
    info = tmp_path / "dataset_info.json"
    info.write_text(info.read_text().replace('"tfrecord"', '"riegeli"'))
    with pytest.raises(ValueError, match="is stored as riegeli; only tfrecord is read"):
        TFDSSource(folder, "train")


def test_features_are_found_by_type_and_can_be_named(tfds_folder):
    expected = {"image": "image", "label": "label", "filename": "image/filename"}
    assert TFDSSource(tfds_folder, "train").features == expected
    source = TFDSSource(tfds_folder, "train", image_feature="image", label_feature="label")
    assert source.features == expected


def test_foreign_records_are_counted_and_read(tmp_path):
    pattern = tiny_records.write_foreign(tmp_path, [3, 1, 4])
    source = TFRecordSource(pattern, num_classes=5, features=FOREIGN_FEATURES)
    assert_numbers(source, range(8))
    assert [segment.num_records for segment in source.segments] == [3, 1, 4]


def test_default_features_and_label_offset_are_those_of_imagenet_shards(tmp_path):
    records = [tiny_records.foreign_example(tiny_records.png(0), label) for label in (1, 5)]
    path = tiny_records.write_records(tmp_path / "train-00000-of-00001", records)
    source = TFRecordSource(path, num_classes=5, label_offset=1)
    assert [example["label"] for example in read_all(source)] == [0, 4]


def test_class_names_from_a_file(tmp_path):
    pattern = tiny_records.write_foreign(tmp_path, [2])
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    source = TFRecordSource(pattern, 5, class_names=str(tmp_path / "names.txt"))
    assert source.class_names == list("abcde")
    with pytest.raises(ValueError, match="5 class_names for 7 classes"):
        TFRecordSource(pattern, 7, class_names=str(tmp_path / "names.txt"))


def test_wrong_declared_count_is_an_error(tmp_path):
    pattern = tiny_records.write_foreign(tmp_path, [3, 2])
    assert TFRecordSource(pattern, 5, num_examples=5).num_examples == 5
    with pytest.raises(ValueError, match="holds 5 records in 2 files, but num_examples=6"):
        TFRecordSource(pattern, 5, num_examples=6)


def test_pattern_without_match_says_what_is_there(tmp_path):
    tiny_records.write_foreign(tmp_path, [1])
    message = (
        f"No file matches the pattern {tmp_path}/val-* ({tmp_path} holds train-00000-of-00001)."
    )
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        TFRecordSource(f"{tmp_path}/val-*", 5)


def test_missing_declared_feature_lists_the_present_ones(tmp_path):
    pattern = tiny_records.write_foreign(tmp_path, [1])
    message = (
        f"{tmp_path}/train-00000-of-00001 record 0 has no feature 'jpg' (declared as the image); "
        "it has image/class/label, image/encoded, image/filename. Set TFRecordSource.features."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        TFRecordSource(pattern, 5, features={"image": "jpg", "label": "image/class/label"})


def test_a_file_that_is_no_tfrecord_is_refused(tmp_path):
    (tmp_path / "train-0").write_text("path,label\n" * 20)
    with pytest.raises(ValueError, match=r"train-0 record 0: corrupt TFRecord \(CRC mismatch"):
        TFRecordSource(f"{tmp_path}/train-*", 5)


def test_gzip_is_recognised(tmp_path):
    with tf.io.TFRecordWriter(f"{tmp_path}/train-0", "GZIP") as writer:
        writer.write(b"x" * 100)
    with pytest.raises(ValueError, match="gzip-compressed; decompress it first"):
        TFRecordSource(f"{tmp_path}/train-*", 5)


def test_empty_files_hold_no_records(tmp_path):
    (tmp_path / "train-0").touch()
    with pytest.raises(ValueError, match="holds no records"):
        TFRecordSource(f"{tmp_path}/train-*", 5)
