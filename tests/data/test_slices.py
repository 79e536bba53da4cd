"""Slices of foreign files: TFDS's notation and rounding, disjoint and complete."""

import numpy as np
import pytest
import tensorflow as tf
import tiny_records
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_tf.data import tfrecord
from vit_tf.data.slices import slice_segments
from vit_tf.data.tfds_source import TFDSSource
from vit_tf.data.tfrecord_source import TFRecordSource

SHARDS = [5, 4, 6]


@pytest.fixture(scope="module")
def pattern(tmp_path_factory) -> str:
    return tiny_records.write_foreign(tmp_path_factory.mktemp("foreign"), SHARDS)


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory) -> str:
    return tiny_records.write_tfds(tmp_path_factory.mktemp("tfds"), {"train": SHARDS})


def numbers(segments: list[tfrecord.Segment]) -> list[int]:
    """The numbers of the images, read as sources are read: through the file or by offset."""
    ways = []
    for by_offset in (True, False):
        found = []
        for segment in segments:
            offset = segment.byte_offset if by_offset else None
            start = (segment.path, segment.num_records, segment.first_record, offset)
            for record in tfrecord.read_segment(*start).as_numpy_iterator():
                example = tf.train.Example.FromString(record)
                name = example.features.feature["image/filename"].bytes_list.value[0]
                found.append(int(name.removesuffix(b".png")))
        ways.append(found)
    assert ways[0] == ways[1]
    return ways[0]


def foreign(pattern: str, split: str) -> TFRecordSource:
    return TFRecordSource(pattern, 5, tiny_records.FOREIGN_FEATURES, split=split)


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("[:98%]", range(15)),
        ("[50%:]", range(8, 15)),
        ("[7:]", range(7, 15)),
        ("[-2:]", range(13, 15)),
        ("[:-20%]", range(12)),
        ("[3:5] + [6:11]", [3, 4, *range(6, 11)]),
        ("[:10%]+[20%:]", [0, 1, *range(3, 15)]),
    ],
)
def test_slices_take_exactly_their_records_as_tfds_does(pattern, tfds_folder, split, expected):
    source = foreign(pattern, split)
    assert numbers(source.segments) == list(expected)
    assert source.num_examples == len(expected)
    of_tfds = "+".join(f"train{term.strip()}" for term in split.split("+"))
    segments = TFDSSource(tfds_folder, of_tfds).segments
    assert [(s.first_record, s.num_records) for s in segments] == [
        (s.first_record, s.num_records) for s in source.segments
    ]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=4),
    border=st.integers(-130, 130),
    percent=st.booleans(),
)
def test_slices_that_share_a_border_are_disjoint_and_complete(sizes, border, percent):
    # Segments that begin in the files' middles show that only the chosen records count.
    segments = [tfrecord.Segment(f"file{i}", 2, size, 40) for i, size in enumerate(sizes)]
    text = f"{border}%" if percent else f"{border}"
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfrecord, "record_bounds", lambda s: np.arange(s.num_records + 1) * 10 + 40)
        for split in (f"[:{text}]", f"[{text}:]"):
            try:
                parts = slice_segments(segments, split)
            except ValueError as error:
                assert "is empty" in str(error) or "goes beyond" in str(error)
                if "goes beyond" in str(error):
                    return
                continue
            for part in parts:
                assert part.byte_offset == 40 + 10 * (part.first_record - 2)
                first = part.first_record
                seen += [(part.path, first + i) for i in range(part.num_records)]
    assert seen == [(s.path, 2 + i) for s in segments for i in range(s.num_records)]


@pytest.mark.parametrize("border", ["98%", "6", "-4"])
def test_complementary_tfds_splits_are_disjoint_and_complete(tfds_folder, border):
    parts = [
        TFDSSource(tfds_folder, split)
        for split in (f"train[:{border}]", f"train[{border}:]")
        if not (border == "98%" and split.endswith(":]"))  # empty of 15
    ]
    assert [n for part in parts for n in numbers_of_tfds(part)] == list(range(15))


def numbers_of_tfds(source: TFDSSource) -> list[int]:
    found = []
    for segment in source.segments:
        dataset = tfrecord.read_segment(segment.path, segment.num_records, segment.first_record)
        names = [source.parse(record)["filename"].numpy() for record in dataset]
        found += [int(name.removesuffix(b".png")) for name in names]
    return found


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train[:5]", r"cannot read the slice 'train\[:5\]' of .* it is written like \[:98%\]"),
        ("[:5", r"cannot read the slice '\[:5'"),
        ("[15:]", r"the slice '\[15:\]' of 15 records is empty"),
        ("[12:99]", r"the slice '\[12:99\]' goes beyond the 15 records there are"),
        ("[-1%:]", r"the slice '\[-1%:\]' of 15 records is empty"),
        ("[:50%]+[7:]", r"the slices '\[:50%\]\+\[7:\]' of 15 records overlap"),
    ],
)
def test_slices_that_make_no_sense_are_errors(pattern, split, message):
    with pytest.raises(ValueError, match=message):
        foreign(pattern, split)


def test_the_declared_count_is_that_of_the_files(pattern):
    features = tiny_records.FOREIGN_FEATURES
    source = TFRecordSource(pattern, 5, features, num_examples=15, split="[:4]")
    assert source.num_examples == 4 and source.name.endswith(" [:4]")
