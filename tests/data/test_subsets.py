"""A few examples of each class: drawn as big_vision draws them, the same every time."""

import json

import numpy as np
import pytest
import tensorflow as tf
import tiny_records

from vit_tf.data.input import Input
from vit_tf.data.subsets import FewShotSource, Subset, draw_per_class
from vit_tf.data.tfrecord_source import TFRecordSource

SHARDS = [15, 9, 16]
PLAIN = "decode|central_crop(8)"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> TFRecordSource:
    pattern = tiny_records.write_foreign(tmp_path_factory.mktemp("foreign"), SHARDS)
    return TFRecordSource(pattern, num_classes=5, features=tiny_records.FOREIGN_FEATURES)


def evaluated(data: Input) -> dict[str, np.ndarray]:
    batches = list(data().as_numpy_iterator())
    real = np.concatenate([batch["mask"] for batch in batches]) > 0
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    return {key: values[real] for key, values in joined.items()}


def numbers(source: Subset) -> list[int]:
    names = [row["filename"] for row in Input(source, PLAIN, 4, False).encoded()]
    return [int(name.numpy().removesuffix(b".png")) for name in names]


def test_draws_are_those_of_big_vision(shared):
    folder = shared / "golden/behaviour/few_shot_ridge"
    golden, config = np.load(folder / "io.npz"), json.loads((folder / "meta.json").read_text())
    for seed in config["config"]["seeds"]:
        for shots in config["config"]["shots"]:
            drawn = draw_per_class(golden["train_labels"], shots, seed)
            np.testing.assert_array_equal(drawn, golden[f"seed{seed}/shots{shots}/indices"])


def test_each_class_has_its_number_and_images_keep_their_labels(source):
    few = FewShotSource(source, per_class=3, seed=1)
    expected = np.sort(draw_per_class(np.arange(40) % 5, 3, 1))
    examples = evaluated(Input(few, PLAIN, 4, training=False))
    assert few.num_examples == 15 and numbers(few) == expected.tolist()
    np.testing.assert_array_equal(examples["index"], np.arange(15))
    np.testing.assert_array_equal(examples["label"], expected % 5)
    images = [tiny_records.pixels(number) for number in expected]
    np.testing.assert_array_equal(examples["image"], images)


def test_smaller_draws_are_among_larger_ones_and_seeds_differ(source):
    draws = [set(numbers(FewShotSource(source, k, seed=2))) for k in (1, 3, 8)]
    assert draws[0] < draws[1] < draws[2] == set(range(40))
    assert draws[1] == set(numbers(FewShotSource(source, 3, seed=2)))
    assert draws[1] != set(numbers(FewShotSource(source, 3, seed=3)))


@pytest.mark.parametrize("shuffle", ["window", "global"])
def test_training_on_few_examples_shows_each_once_an_epoch(source, shuffle):
    few = FewShotSource(source, per_class=2)
    data = Input(few, PLAIN, 10, training=True, shuffle=shuffle, cache=True)
    for batch in data().take(3).as_numpy_iterator():
        assert sorted(batch["index"]) == list(range(10))
        assert np.bincount(batch["label"]).tolist() == [2] * 5


def test_few_of_the_few_and_of_a_slice(source):
    sliced = TFRecordSource(source.name, 5, tiny_records.FOREIGN_FEATURES, split="[20:]")
    few = FewShotSource(FewShotSource(sliced, 4), 2)
    assert min(numbers(few)) >= 20 and few.num_examples == 10
    first = numbers(few)[0]
    path, place = ("00001", first - 15) if first < 24 else ("00002", first - 24)
    assert few.locate(0).endswith(f"train-{path}-of-00003 record {place}")


def test_classes_with_too_few_examples_are_named(tmp_path):
    labels = [0, 0, 0, 1, 2, 2]
    records = [tiny_records.foreign_example(tiny_records.png(i), n) for i, n in enumerate(labels)]
    path = tiny_records.write_records(tmp_path / "records", records)
    source = TFRecordSource(path, num_classes=4, class_names=["ant", "bee", "cat", "dog"])
    message = r"fewer than 2 examples of class bee \(1\), dog \(0\)$"
    with pytest.raises(ValueError, match=message):
        FewShotSource(source, 2)
    with pytest.raises(ValueError, match="per_class must be at least 1, got 0"):
        FewShotSource(source, 0)
    with pytest.raises(ValueError, match=r"records record 4: no label in 0\.\.1"):
        FewShotSource(TFRecordSource(path, num_classes=2), 1)


def test_damage_is_named(tmp_path):
    records = [tiny_records.foreign_example(tiny_records.png(i), 0) for i in range(4)]
    path = tmp_path / "records"
    source = TFRecordSource(tiny_records.write_records(path, records), num_classes=1)
    content = bytearray(path.read_bytes())
    content[source.segments[0].byte_offset + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"records record 0: corrupt TFRecord \(CRC mismatch"):
        FewShotSource(source, 1)


def test_subsets_ascend_within_their_source(source):
    assert numbers(Subset(source, [3, 4, 5, 30], "some")) == [3, 4, 5, 30]
    assert len(Subset(source, [3, 4, 5, 30], "some").segments) == 2
    with pytest.raises(ValueError, match="some: indices must ascend, each once"):
        Subset(source, [4, 3], "some")
    with pytest.raises(IndexError, match="has 40 records, some needs more"):
        Subset(source, [40], "some")


def test_bad_images_of_a_subset_are_named_by_their_file(tmp_path):
    records = [tiny_records.foreign_example(tiny_records.png(i), 0) for i in range(4)]
    records[2] = tiny_records.foreign_example(b"nothing", 0)
    source = TFRecordSource(tiny_records.write_records(tmp_path / "records", records), 1)
    data = Input(Subset(source, [1, 2], "two"), PLAIN, 2, training=False)
    with pytest.raises(tf.errors.InvalidArgumentError):
        evaluated(data)
    assert "records record 2: not an image: text beginning 'nothing'" in data.diagnose()
