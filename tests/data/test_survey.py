"""A look at all records: counts, sizes, damage with its place, checksums."""

import hashlib

import numpy as np
import pytest
import tiny_records
from tiny_records import foreign_example, jpeg, png

from vit_tf.data import tfrecord
from vit_tf.data.input import Input
from vit_tf.data.mixture import MixtureSource
from vit_tf.data.survey import encoded_image, images_per_second, survey, wrong_checksums
from vit_tf.data.tfds_source import TFDSSource
from vit_tf.data.tfrecord_source import TFRecordSource


def make_source(folder, records: list[bytes]) -> TFRecordSource:
    path = tiny_records.write_records(folder / "train-0", records)
    return TFRecordSource(path, 4, features=tiny_records.FOREIGN_FEATURES)


def test_classes_and_sizes_are_counted(tmp_path):
    records = [foreign_example(png(i, 6 + i, 9), i % 3) for i in range(7)]
    progress = []
    found = survey(make_source(tmp_path, records), progress=progress.append)
    assert found.class_counts.tolist() == [3, 2, 2, 0]
    assert found.sizes.tolist() == [[6 + i, 9] for i in range(7)]
    assert (found.num_records, found.bad, sum(progress)) == (7, [], 7)


def test_bad_records_are_found_with_record_and_byte(tmp_path):
    records = [foreign_example(png(i), 0) for i in range(8)]
    records[1] = foreign_example(jpeg(1)[:300], 0, "rose.jpg")
    records[2] = foreign_example(png(2), 9)
    records[3] = b"garbage"
    source = make_source(tmp_path, records)
    path = source.segments[0].path
    offsets = list(tfrecord.record_offsets(path))
    content = bytearray((tmp_path / "train-0").read_bytes())
    content[offsets[5] + 30] ^= 1
    (tmp_path / "train-0").write_bytes(content)
    found = survey(source)
    assert [(bad.record, bad.byte_offset) for bad in found.bad] == [
        (record, offsets[record]) for record in (1, 2, 3, 5)
    ]
    problems = [bad.problem for bad in found.bad]
    assert problems[0].startswith("truncated JPEG (300 bytes")
    assert problems[1] == "label 9 is outside 0..3"
    assert problems[2] == "not a tf.train.Example"
    assert problems[3].startswith("corrupt TFRecord (CRC mismatch in the")
    assert str(found.bad[1]) == f"{path} record 2 (byte {offsets[2]}): label 9 is outside 0..3"
    assert len(found.sizes) == found.class_counts.sum() == 4


def test_a_mixture_is_surveyed_in_its_common_classes(tmp_path):
    parts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        records = [foreign_example(png(i), i) for i in range(4)]
        parts.append(make_source(tmp_path / name, records))
    mixture = MixtureSource(parts, labels="separate")
    assert survey(mixture).class_counts.tolist() == [1] * 8
    assert encoded_image(mixture, 6) == png(2)


def test_a_changed_shard_does_not_fit_its_checksum(tmp_path):
    source = TFDSSource(tiny_records.write_tfds(tmp_path, {"train": [3, 3]}), "train")
    assert wrong_checksums(source) == (0, [])
    shards = sorted(tmp_path.glob("*.tfrecord*"))
    lines = [f"{hashlib.sha256(shard.read_bytes()).hexdigest()}  {shard.name}" for shard in shards]
    (tmp_path / "checksums.sha256").write_text("\n".join(lines) + "\n")
    assert wrong_checksums(source) == (2, [])
    shards[1].write_bytes(shards[1].read_bytes() + b"x")
    sentence = f"{shards[1]}: the content is not what checksums.sha256 says"
    assert wrong_checksums(source) == (2, [sentence])


def test_an_image_is_found_by_its_number_in_the_split(tmp_path):
    source = TFDSSource(tiny_records.write_tfds(tmp_path, {"train": [3, 4]}), "train[1:6]")
    for index in range(5):
        assert encoded_image(source, index) == png(index + 1)


@pytest.mark.parametrize("training", [True, False])
def test_throughput_is_measured_past_the_end_of_a_split(tmp_path, training):
    source = make_source(tmp_path, [foreign_example(png(i), 0) for i in range(4)])
    data = Input(source, "decode|resize(8)", 2, training=training)
    assert np.isfinite(images_per_second(data, 0.2)) and images_per_second(data, 0.1) > 20
