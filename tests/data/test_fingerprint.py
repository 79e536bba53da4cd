"""Facts of a source are equal for equal records with equal labels."""

import os
import shutil
from pathlib import Path

import pytest

from vit_tf.data import FewShotSource, MixtureSource, RelabelledSource, TFDSSource
from vit_tf.data.fingerprint import source_facts
from vit_tf.data.sources import Source


@pytest.fixture
def copy(digits_dir, tmp_path):
    folder = Path(shutil.copytree(digits_dir, tmp_path / "digits" / "1.0.0"))
    (folder / "checksums.sha256").touch()
    return folder


def digits(folder, split="test"):
    return TFDSSource(str(folder), split)


def test_a_copy_elsewhere_is_the_same_by_its_checksums(digits_dir, copy):
    assert source_facts(digits(copy)) == source_facts(digits(digits_dir))


def test_a_file_that_changed_after_its_checksum_is_another(digits_dir, copy):
    path = next(copy.glob("*-test.tfrecord-00000-*"))
    path.write_bytes(path.read_bytes())
    later = (copy / "checksums.sha256").stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))
    assert source_facts(digits(copy)) != source_facts(digits(digits_dir))


def test_without_checksums_a_file_is_known_by_its_time(copy):
    (copy / "checksums.sha256").unlink()
    before = source_facts(digits(copy))
    assert source_facts(digits(copy)) == before
    os.utime(next(copy.glob("*-test.tfrecord-00000-*")), ns=(1, 1))
    assert source_facts(digits(copy)) != before


def test_a_source_s_records_are_part_of_it(digits_dir):
    whole = digits(digits_dir)
    facts = [
        source_facts(source)
        for source in (
            whole,
            digits(digits_dir, "train"),
            digits(digits_dir, "test[:50%]"),
            FewShotSource(whole, 3),
            FewShotSource(whole, 3, seed=1),
            MixtureSource([whole, whole]),
            MixtureSource([whole, whole], labels="separate"),
        )
    ]
    assert all(facts.count(each) == 1 for each in facts)
    assert source_facts(FewShotSource(whole, 3)) == facts[3]


def test_labels_of_a_file_are_part_of_it(digits_dir, tmp_path):
    source = digits(digits_dir)
    names = [record["filename"].numpy().decode() for record in _parsed(source)]
    facts = []
    for first in (0, 1, 0):
        path = tmp_path / f"labels{len(facts)}.csv"
        lines = [f"{name},{first if place == 0 else 2}" for place, name in enumerate(names)]
        path.write_text("\n".join(["filename,label", *lines]) + "\n")
        facts.append(source_facts(RelabelledSource(source, str(path)))["labels"])
    assert facts[0] == facts[2] != facts[1]


def _parsed(source):
    from vit_tf.data.input import Input

    ops = "decode|resize(8)|value_range(0, 1)"
    return Input(source, ops, batch_size=8, training=False).encoded()


def test_a_source_that_does_not_tell_how_it_labels_is_refused(digits_dir):
    class Other(Source):
        def parse(self, serialized, index=None):
            return {**super().parse(serialized, index), "label": 0}

    given = digits(digits_dir)
    other = Other("other", given.segments, given.features, num_classes=10)
    with pytest.raises(TypeError, match="Other has a parse of its own; give it a method labelling"):
        source_facts(other)
    with pytest.raises(TypeError, match="labelling"):
        source_facts(MixtureSource([given, other]))
