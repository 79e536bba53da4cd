"""Bad records: found and named by `diagnose`, or skipped, counted and reported."""

import logging
import os
import re

import numpy as np
import pytest
import tensorflow as tf
import tiny_records
from tiny_records import foreign_example, jpeg

from vit_tf.data import tfrecord
from vit_tf.data.input import Input
from vit_tf.data.tfds_source import TFDSSource
from vit_tf.data.tfrecord_source import TFRecordSource

NUM_RECORDS, BAD = 10, 6
PREPROCESS = "decode|resize(8)"
FIX = ". Fix or remove it, or set Input.on_bad_record = 'skip' to skip and count such records."

WRONG = {
    "truncated_jpeg": (
        foreign_example(jpeg(1)[:300], 1, "rose.jpg"),
        "truncated JPEG (300 bytes, no end-of-image marker) (rose.jpg)",
    ),
    "corrupt_jpeg": (
        foreign_example(b"\xff\xd8 nothing \xff\xd9", 1),
        "corrupt JPEG (13 bytes)",
    ),
    "truncated_png": (
        foreign_example(tiny_records.png(1)[:100], 1),
        "truncated PNG (100 bytes, no end-of-image marker)",
    ),
    "gif_named_jpg": (
        foreign_example(tiny_records.GIF, 1, "tulips/7.JPG"),
        "a GIF under the name tulips/7.JPG",
    ),
    "text_named_jpg": (
        foreign_example(b"<html>404 Not Found</html>", 1, "7.jpg"),
        "not an image: text beginning '<html>404 Not Found</html>' (7.jpg)",
    ),
    "unknown_bytes": (
        foreign_example(b"\x00\x01\xfe\xff" * 4, 1),
        "not a JPEG, PNG, WebP, BMP or GIF: 16 bytes beginning 0x0001feff0001feff",
    ),
    "empty_image": (foreign_example(b"", 1), "the image is empty"),
    "label_too_large": (foreign_example(jpeg(1), 12), "label 12 is outside 0..9"),
    "label_negative": (foreign_example(jpeg(1), -1), "label -1 is outside 0..9"),
    "not_an_example": (b"garbage", "not a tf.train.Example"),
    "empty_record": (b"", "the record is empty or missing (the file ends before it)"),
    "other_features": (
        tf.train.Example(
            features=tf.train.Features(
                feature={
                    "image/encoded": tf.train.Feature(float_list=tf.train.FloatList(value=[1.0]))
                }
            )
        ).SerializeToString(),
        "features do not fit: needs image/encoded (one bytes_list), image/class/label "
        "(one int64_list), has image/encoded (float_list)",
    ),
}


def make_source(folder, bad_record: bytes | None = None) -> TFRecordSource:
    records = [foreign_example(jpeg(i), i) for i in range(NUM_RECORDS)]
    if bad_record is not None:
        records[BAD] = bad_record
    path = tiny_records.write_records(folder / "train-0", records)
    return TFRecordSource(path, 10, features=tiny_records.FOREIGN_FEATURES)


def damage(source: TFRecordSource, at: int | None = None, cut: int | None = None) -> int:
    """Flips byte `at` of record BAD's frame or cuts the file there; returns where it begins."""
    path = source.segments[0].path
    with open(path, "rb") as file:
        content = bytearray(file.read())
    offset = tfrecord.offset_of(path, BAD)
    if at is not None:
        content[offset + at] ^= 1
    else:
        del content[offset + cut :]
    with open(path, "wb") as file:
        file.write(content)
    return offset


def masks(data: Input, steps: int) -> dict[int, float]:
    batches = data().take(steps).as_numpy_iterator()
    return {
        int(index): float(mask)
        for batch in batches
        for index, mask in zip(batch["index"], batch["mask"], strict=True)
    }


@pytest.mark.parametrize("kind", WRONG)
def test_a_bad_record_stops_training_and_is_named(tmp_path, kind):
    record, problem = WRONG[kind]
    source = make_source(tmp_path, record)
    data = Input(source, PREPROCESS, 5, training=True)
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(data().take(2))
    assert data.diagnose() == f"{tmp_path}/train-0 record {BAD}: {problem}{FIX}"


@pytest.mark.parametrize("kind", WRONG)
def test_a_skipped_record_is_masked_counted_and_named(tmp_path, kind, caplog):
    record, problem = WRONG[kind]
    source = make_source(tmp_path, record)
    data = Input(source, PREPROCESS, 5, training=True, on_bad_record="skip")
    location = f"{tmp_path}/train-0 record {BAD}"
    with caplog.at_level(logging.WARNING):
        seen = masks(data, 4)
    assert seen == {i: float(i != BAD) for i in range(NUM_RECORDS)}
    assert data.skipped == {location: problem}
    assert caplog.text.count(f"Skipped {location}: {problem}") == 1
    assert data.diagnose() is None


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (
            {"at": 3},
            "CRC mismatch in the length at byte {offset}: the file's last {rest} bytes and their "
            "records are lost",
        ),
        ({"at": 40}, "CRC mismatch in the {size} data bytes at byte {data}"),
        ({"cut": 50}, "the file ends at byte {cut}, inside the record of bytes {offset} to {end}"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_corrupt_record_is_named_with_file_record_and_byte(tmp_path, damaged, reason, training):
    source = make_source(tmp_path)
    path = source.segments[0].path
    end = tfrecord.offset_of(path, BAD + 1)
    offset = damage(source, **damaged)
    reason = reason.format(
        offset=offset,
        data=offset + 12,
        size=end - offset - 16,
        cut=offset + 50,
        end=end,
        rest=os.path.getsize(path) - offset,
    )
    data = Input(source, PREPROCESS, 5, training=training)
    with pytest.raises(tf.errors.DataLossError):
        list(data().take(3))
    expected = f"{tmp_path}/train-0 record {BAD}: corrupt TFRecord ({reason}){FIX}"
    assert data.diagnose() == expected
    with pytest.raises(ValueError, match=re.escape(expected)):
        Input(source, PREPROCESS, 5, training=training, cache=True)()


def test_a_file_cut_in_a_header_does_not_pass_for_a_shorter_one(tmp_path):
    source = make_source(tmp_path)
    damage(source, cut=5)  # TensorFlow's reader takes this for the end of the file
    data = Input(source, PREPROCESS, 5, training=False)
    with pytest.raises(tf.errors.OpError):
        list(data())
    assert data.diagnose().startswith(f"{tmp_path}/train-0 record {BAD}: the record is empty or")


@pytest.mark.parametrize(
    ("damaged", "lost"), [({"at": 40}, [6]), ({"at": 3}, [6, 7, 8, 9]), ({"cut": 5}, [6, 7, 8, 9])]
)
def test_skipped_corrupt_records_are_left_out_of_the_epoch(tmp_path, damaged, lost, caplog):
    source = make_source(tmp_path)
    damage(source, **damaged)
    with caplog.at_level(logging.WARNING):
        data = Input(source, PREPROCESS, 3, training=False, on_bad_record="skip")
    assert list(data.skipped) == [f"{tmp_path}/train-0 record {i}" for i in lost]
    assert f"{len(lost)} of 10 records are corrupt and left out" in caplog.text
    assert data.examples_per_epoch == NUM_RECORDS - len(lost)
    kept = sorted(set(range(NUM_RECORDS)) - set(lost))
    assert sorted(i for i, mask in masks(data, -1).items() if mask) == kept


def test_records_that_tfds_promises_but_the_file_lacks(tmp_path):
    folder = tiny_records.write_tfds(tmp_path, {"train": [4, 4]})
    shard = f"{tmp_path}/tiny-train.tfrecord-00000-of-00002"
    with open(shard, "r+b") as file:
        file.truncate(tfrecord.offset_of(shard, 3))
    data = Input(TFDSSource(folder, "train"), PREPROCESS, 4, training=False)
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(data())
    assert f"{shard} record 3: the record is empty or missing" in data.diagnose()
    skipping = Input(
        TFDSSource(folder, "train"), PREPROCESS, 4, training=False, on_bad_record="skip"
    )
    assert sorted(masks(skipping, -1)) == [-1, 0, 1, 2, 4, 5, 6, 7]
    assert list(skipping.skipped) == [f"{shard} record 3"]


def test_skipping_keeps_the_rest_of_the_stream_and_its_resume(tmp_path):
    (tmp_path / "good").mkdir()
    good = Input(make_source(tmp_path / "good"), PREPROCESS, 4, training=True)
    source = make_source(tmp_path, WRONG["truncated_jpeg"][0])
    skipping = Input(source, PREPROCESS, 4, training=True, on_bad_record="skip")
    expected = list(good().take(8).as_numpy_iterator())
    for start_step in (0, 3):
        batches = list(skipping(start_step=start_step).take(8 - start_step).as_numpy_iterator())
        for batch, reference in zip(batches, expected[start_step:], strict=True):
            np.testing.assert_array_equal(batch["index"], reference["index"])
            kept = batch["mask"] == 1
            np.testing.assert_array_equal(batch["image"][kept], reference["image"][kept])


def test_warnings_stop_after_ten_but_counting_does_not(tmp_path, caplog):
    records = [foreign_example(b"broken", 0) for _ in range(14)]
    source = TFRecordSource(tiny_records.write_records(tmp_path / "all", records), 10)
    data = Input(source, PREPROCESS, 7, training=False, on_bad_record="skip")
    with caplog.at_level(logging.WARNING):
        assert not any(masks(data, -1).values())
    assert len(data.skipped) == 14
    assert caplog.text.count("Skipped ") == 10
    assert "Further skipped records are listed in Input.skipped only." in caplog.text


def test_an_image_too_small_for_its_crop_is_named(tmp_path):
    source = make_source(tmp_path, foreign_example(jpeg(1, 6, 6), 1, "dot.jpg"))
    data = Input(source, "decode|central_crop(8)", 5, training=False)
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(data())
    message = f"record {BAD}: central_crop(8): the image is smaller than 8x8; resize it first"
    assert message in data.diagnose()


def test_diagnose_finds_nothing_in_good_data(tmp_path):
    assert Input(make_source(tmp_path), PREPROCESS, 5, training=True).diagnose(3) is None


def test_diagnose_starts_where_it_is_told(tmp_path):
    source = make_source(tmp_path, WRONG["empty_image"][0])
    data = Input(source, PREPROCESS, 1, training=True, shuffle_window=1)
    assert data.diagnose(BAD + 1, max_examples=3) is None
    assert f"record {BAD}: the image is empty" in data.diagnose(BAD - 1, max_examples=3)
