"""Faults of files and images under a pipeline: a clear error or a counted skip, never a hang.

What single records can be like is in test_bad_records.py, what disks do in test_shard_faults.py.
"""

import re
import struct
import time

import numpy as np
import pytest
import tensorflow as tf
import tiny_records
from tiny_records import foreign_example, jpeg, png

from vit_tf.data import tfrecord
from vit_tf.data.decode import MAX_PIXELS
from vit_tf.data.input import Input
from vit_tf.data.tfds_source import TFDSSource
from vit_tf.data.tfrecord_source import TFRecordSource

PREPROCESS = "decode|resize(8)"


def foreign_shards(folder, *shards: list[bytes], **options) -> TFRecordSource:
    for number, records in enumerate(shards):
        tiny_records.write_records(f"{folder}/train-{number}", records)
    options = {"num_classes": 5, "features": tiny_records.FOREIGN_FEATURES, **options}
    return TFRecordSource(f"{folder}/train-*", **options)


def good_records(count: int) -> list[bytes]:
    return [foreign_example(png(i), i % 5) for i in range(count)]


def seen(data: Input) -> dict[int, float]:
    return {
        int(index): float(mask)
        for batch in data().as_numpy_iterator()
        for index, mask in zip(batch["index"], batch["mask"], strict=True)
        if index >= 0
    }


def huge(encoded: bytes) -> bytes:
    """The same file, claiming 20,000 x 20,000 pixels."""
    if encoded.startswith(b"\x89PNG"):
        return encoded[:16] + struct.pack(">II", 20_000, 20_000) + encoded[24:]
    start = encoded.index(b"\xff\xc0") + 5
    return encoded[:start] + struct.pack(">HH", 20_000, 20_000) + encoded[start + 4 :]


@pytest.mark.parametrize("encoded", [jpeg(1), png(1)], ids=["jpeg", "png"])
def test_a_header_of_20000_by_20000_pixels_is_named_or_skipped(tmp_path, encoded):
    records = good_records(6)
    records[2] = foreign_example(huge(encoded), 1)
    source = foreign_shards(tmp_path, records)
    problem = f"the header claims 20000x20000 pixels, more than max_pixels={MAX_PIXELS}"
    data = Input(source, PREPROCESS, 3, training=False)
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(data())
    assert f"{tmp_path}/train-0 record 2: {problem}. Fix" in data.diagnose()
    skipping = Input(source, PREPROCESS, 3, training=False, on_bad_record="skip")
    assert seen(skipping) == {i: float(i != 2) for i in range(6)}
    assert skipping.skipped == {f"{tmp_path}/train-0 record 2": problem}


def test_a_limit_of_ones_own_is_named_too(tmp_path):
    source = foreign_shards(tmp_path, [foreign_example(jpeg(1, 24, 32), 1)])
    data = Input(source, "decode(max_pixels=100)|resize(8)", 1, training=False)
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(data())
    assert "the header claims 24x32 pixels, more than max_pixels=100" in data.diagnose()


def test_an_animated_webp_is_named(tmp_path):
    webp = b"RIFF\x80\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02\x00\x00\x00" + bytes(100)
    source = foreign_shards(tmp_path, [foreign_example(webp, 1)])
    data = Input(source, PREPROCESS, 1, training=False)
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(data())
    assert "an animated WebP, which TensorFlow cannot decode" in data.diagnose()


def test_an_empty_shard_is_warned_of_and_passed_over(tmp_path, caplog):
    source = foreign_shards(tmp_path, good_records(3), [], good_records(2))
    assert f"{tmp_path}/train-1 holds no records." in caplog.text
    data = Input(source, PREPROCESS, 2, training=False)
    assert sorted(seen(data)) == [0, 1, 2, 3, 4]


def test_empty_shards_alone_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no records. Write shards with"):
        foreign_shards(tmp_path, [], [])


@pytest.mark.parametrize("training", [True, False])
def test_a_shard_deleted_while_reading_is_an_error_not_a_hang(tmp_path, training):
    folder = tiny_records.write_tfds(tmp_path, {"train": [40, 40, 40]})
    data = Input(TFDSSource(folder, "train"), PREPROCESS, 4, training=training, shuffle_window=4)
    batches = iter(data().repeat() if not training else data())
    next(batches)
    for path in tmp_path.glob("*.tfrecord*"):
        path.unlink()
    began = time.monotonic()
    with pytest.raises(tf.errors.NotFoundError, match=r"tiny-train\.tfrecord-0000\d-of-00003"):
        for _ in range(200):
            next(batches)
    assert time.monotonic() - began < 30
    missing = "a file of .* that was there at the start is missing: .*tfrecord.* Put it back"
    assert re.match(missing, data.diagnose())


def test_records_behind_a_damaged_length_are_said_to_be_lost(tmp_path):
    foreign_shards(tmp_path, good_records(4), good_records(4), good_records(4))
    shard = tmp_path / "train-1"
    content = bytearray(shard.read_bytes())
    content[1] ^= 1
    shard.write_bytes(content)
    source = foreign_shards(tmp_path)
    data = Input(source, PREPROCESS, 4, training=False, on_bad_record="skip")
    lost = f"at byte 0: the file's last {len(content)} bytes and their records are lost"
    assert [reason for reason in data.skipped.values() if lost in reason]


def test_a_shard_missing_from_the_start_is_named(tmp_path):
    folder = tiny_records.write_tfds(tmp_path, {"train": [4, 4]})
    shard = tmp_path / "tiny-train.tfrecord-00001-of-00002"
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(shard.name)):
        Input(TFDSSource(folder, "train"), PREPROCESS, 4, training=False)


@pytest.mark.parametrize("fault", ["truncated", "flipped"])
def test_a_damaged_shard_costs_its_own_records_only(tmp_path, fault):
    source = foreign_shards(tmp_path, good_records(4), good_records(4), good_records(4))
    shard = tmp_path / "train-1"
    content = bytearray(shard.read_bytes())
    at = tfrecord.offset_of(str(shard), 2) + 30
    if fault == "flipped":
        content[at] ^= 1
    shard.write_bytes(content if fault == "flipped" else content[:at])
    lost = {6} if fault == "flipped" else {6, 7}
    with pytest.raises(tf.errors.DataLossError):
        list(Input(source, PREPROCESS, 4, training=False)())
    data = Input(source, PREPROCESS, 4, training=False, on_bad_record="skip")
    assert set(seen(data)) == set(range(12)) - lost
    assert set(data.skipped) == {f"{shard} record {i - 4}" for i in lost}


def test_a_file_of_class_names_that_does_not_fit_the_labels(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\n")
    with pytest.raises(ValueError, match="2 class_names for 5 classes"):
        foreign_shards(tmp_path, good_records(5), class_names=str(names))
    source = foreign_shards(tmp_path, good_records(5), class_names=str(names), num_classes=2)
    data = Input(source, PREPROCESS, 5, training=False, on_bad_record="skip")
    assert list(seen(data).values()) == [1, 1, 0, 0, 0]
    assert data.skipped[f"{tmp_path}/train-0 record 2"] == "label 2 is outside 0..1"
    assert np.isfinite(next(iter(data()))["image"]).all()
