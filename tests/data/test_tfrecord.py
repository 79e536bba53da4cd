"""The framing: counts, and damage of every kind with record number, byte offset and reason."""

import os

import pytest
import tensorflow as tf
import tiny_records
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vit_tf.data import tfrecord
from vit_tf.data.tfrecord import CorruptRecord, Segment

RECORDS = [bytes([i]) * (10 + 7 * i) for i in range(6)]
OFFSETS = [sum(16 + len(r) for r in RECORDS[:i]) for i in range(7)]


@pytest.fixture
def path(tmp_path) -> str:
    return tiny_records.write_records(tmp_path / "records", RECORDS)


def flip(path: str, position: int) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 0x10]))


def read(segments: list[Segment]) -> list[bytes]:
    datasets = [
        tfrecord.read_segment(s.path, s.num_records, byte_offset=s.byte_offset) for s in segments
    ]
    return [record for dataset in datasets for record in dataset.as_numpy_iterator()]


def test_masked_crc_is_tensorflows():
    # core/lib/hash/crc32c_test.cc: crc32c of 32 zero bytes is 0x8a9136aa.
    crc = 0x8A9136AA
    rotated = ((crc >> 15) | (crc << 17)) & 0xFFFFFFFF
    assert tfrecord.masked_crc32c(b"\0" * 32) == (rotated + 0xA282EAD8) % 2**32


def test_count_and_offsets(path):
    assert tfrecord.count_records(path) == 6
    assert list(tfrecord.record_offsets(path)) == OFFSETS[:6]
    assert tfrecord.offset_of(path, 4) == OFFSETS[4]
    with pytest.raises(ValueError, match="holds 6 records; record 6 was asked for"):
        tfrecord.offset_of(path, 6)


def test_a_sound_file_is_one_good_run(path):
    result = tfrecord.scan(Segment(path, 0, 6))
    assert result.good == [Segment(path, 0, 6)]
    assert result.corrupt == [] and result.num_good == 6


def test_an_empty_file_has_no_records(tmp_path):
    path = tiny_records.write_records(tmp_path / "records", [])
    assert tfrecord.count_records(path) == 0
    assert tfrecord.scan(Segment(path, 0, 0)).good == []


def test_flipped_data_byte_costs_one_record(path):
    flip(path, OFFSETS[2] + 12 + 3)
    result = tfrecord.scan(Segment(path, 0, 6))
    reason = f"CRC mismatch in the 24 data bytes at byte {OFFSETS[2] + 12}"
    assert result.corrupt == [CorruptRecord(2, OFFSETS[2], reason)]
    assert result.good == [Segment(path, 0, 2), Segment(path, 3, 3, OFFSETS[3])]
    assert read(result.good) == RECORDS[:2] + RECORDS[3:]


def test_flipped_length_byte_ends_what_can_be_found(path):
    flip(path, OFFSETS[3] + 1)
    result = tfrecord.scan(Segment(path, 0, 6))
    lost = f"lost behind the damage at byte {OFFSETS[3]}"
    rest = f"the file's last {os.path.getsize(path) - OFFSETS[3]} bytes and their records"
    assert result.corrupt == [
        CorruptRecord(
            3, OFFSETS[3], f"CRC mismatch in the length at byte {OFFSETS[3]}: {rest} are lost"
        ),
        CorruptRecord(4, OFFSETS[3], lost),
        CorruptRecord(5, OFFSETS[3], lost),
    ]
    assert read(result.good) == RECORDS[:3]
    assert tfrecord.count_records(path) == 4


@pytest.mark.parametrize("kept", [5, 12, 30])
def test_truncated_file_ends_at_the_last_whole_record(path, kept):
    with open(path, "r+b") as file:
        file.truncate(OFFSETS[4] + kept)
    result = tfrecord.scan(Segment(path, 0, 6))
    assert [corrupt.record for corrupt in result.corrupt] == [4, 5]
    assert f"the file ends at byte {OFFSETS[4] + kept}, inside" in result.corrupt[0].reason
    assert read(result.good) == RECORDS[:4]


def test_file_with_fewer_records_than_declared(path):
    result = tfrecord.scan(Segment(path, 0, 8))
    assert [corrupt.record for corrupt in result.corrupt] == [6, 7]
    assert "before this record" in result.corrupt[0].reason


def test_missing_records_keep_their_places_as_empty_strings(path):
    assert read([Segment(path, 4, 4, OFFSETS[4])]) == [*RECORDS[4:], b"", b""]


def test_scan_of_a_part_ignores_damage_outside(path):
    flip(path, OFFSETS[0] + 12)
    flip(path, OFFSETS[5] + 12)
    segment = Segment(path, 1, 4, OFFSETS[1])
    result = tfrecord.scan(segment)
    assert result.good == [segment] and not result.corrupt


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, OFFSETS[6] - 1))
def test_any_flipped_byte_is_found_and_nothing_sound_is_lost(tmp_path, position):
    path = tiny_records.write_records(tmp_path / "records", RECORDS)
    flip(path, position)
    result = tfrecord.scan(Segment(path, 0, 6))
    hit = max(i for i in range(6) if OFFSETS[i] <= position)
    assert result.corrupt[0].record == hit
    assert result.num_good + len(result.corrupt) == 6
    in_length = position < OFFSETS[hit] + 12
    assert read(result.good) == RECORDS[:hit] + ([] if in_length else RECORDS[hit + 1 :])


def test_tensorflow_agrees_about_the_damage(path):
    flip(path, OFFSETS[2] + 14)
    with pytest.raises(tf.errors.DataLossError):
        list(tf.data.TFRecordDataset(path))
