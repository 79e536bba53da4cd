"""Several data sets as one: shares of the stream, classes brought together, exact evaluation."""

import re

import numpy as np
import pytest
import tensorflow as tf
import tiny_records

from vit_tf.data.input import Input
from vit_tf.data.mixture import MixtureSource
from vit_tf.data.subsets import FewShotSource
from vit_tf.data.tfds_source import TFDSSource
from vit_tf.data.tfrecord_source import TFRecordSource

PLAIN = "decode|central_crop(8)"
TRAIN = "decode|random_crop(8, padding=2)|flip_lr"


@pytest.fixture(scope="module")
def animals(tmp_path_factory) -> TFDSSource:
    """Images 0 to 8, of ant, bee, cat, dog, elk."""
    folder = tiny_records.write_tfds(tmp_path_factory.mktemp("animals"), {"train": [5, 4]})
    return TFDSSource(folder, "train")


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> TFRecordSource:
    """Images 0 to 29, of dog, fox, cat, in records with other feature names."""
    pattern = tiny_records.write_foreign(tmp_path_factory.mktemp("pets"), [10, 20], 3)
    features = tiny_records.FOREIGN_FEATURES
    return TFRecordSource(pattern, 3, features, class_names=["dog", "fox", "cat"])


def evaluated(source, **options) -> dict[str, np.ndarray]:
    batches = list(Input(source, PLAIN, 8, training=False, **options)().as_numpy_iterator())
    joined = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
    return {key: values[joined["mask"] > 0] for key, values in joined.items()}


def take(dataset: tf.data.Dataset, count: int) -> list[dict[str, np.ndarray]]:
    return list(dataset.take(count).as_numpy_iterator())


@pytest.mark.parametrize(
    ("labels", "names", "of_animals", "of_pets"),
    [
        ("separate", "ant bee cat dog elk dog fox cat", [0, 1, 2, 3, 4], [5, 6, 7]),
        ("by_name", "ant bee cat dog elk fox", [0, 1, 2, 3, 4], [3, 5, 2]),
    ],
)
def test_classes_are_brought_together(animals, pets, labels, names, of_animals, of_pets):
    source = MixtureSource([animals, pets], labels=labels)
    assert source.class_names == names.split() and source.num_classes == len(names.split())
    expected = [of_animals[i % 5] for i in range(9)] + [of_pets[i % 3] for i in range(30)]
    examples = evaluated(source)
    np.testing.assert_array_equal(examples["label"], expected)
    np.testing.assert_array_equal(examples["index"], np.arange(39))
    images = [tiny_records.pixels(i) for i in [*range(9), *range(30)]]
    np.testing.assert_array_equal(examples["image"], images)


def test_shared_classes_must_be_the_same(animals, pets):
    message = r"the sources label different classes: tiny.* 5 classes \(ant, bee, cat, ...\); .*"
    with pytest.raises(ValueError, match=message + "labels = 'separate' or 'by_name'"):
        MixtureSource([animals, pets])
    assert MixtureSource([animals, animals]).class_names == animals.class_names


def test_without_weights_an_epoch_shows_every_example_once(animals, pets):
    for shuffle in ("window", "global"):
        source = MixtureSource([animals, pets], labels="separate")
        data = Input(source, PLAIN, 39, training=True, shuffle=shuffle)
        for batch in take(data(), 2):
            assert sorted(batch["index"]) == list(range(39))


def test_weights_are_the_shares_of_the_stream(animals, pets):
    source = MixtureSource([animals, pets], weights=[2, 1], labels="separate")
    data = Input(source, PLAIN, 39, training=True, shuffle="global")
    batches = take(data(), 6)
    for batch in batches:
        assert (batch["index"] < 9).sum() == 26  # two thirds of 39
        assert ((batch["label"] < 5) == (batch["index"] < 9)).all()
    times = np.bincount(np.concatenate([batch["index"] for batch in batches]), minlength=39)
    assert np.ptp(times[:9]) <= 1 and np.ptp(times[9:]) <= 1


def test_weighted_streams_resume_and_are_dealt_to_workers(animals, pets):
    source = MixtureSource([animals, pets], weights=[1, 2], labels="by_name")
    data = Input(source, TRAIN, 8, training=True, shuffle="global", seed=3)
    whole = take(data(), 9)
    resumed = take(data(start_step=6), 3)
    halves = [take(data(tf.distribute.InputContext(2, worker, 2)), 9) for worker in range(2)]
    for step, batch in enumerate(whole):
        for key in batch:
            joined = np.concatenate([half[step][key] for half in halves])
            assert joined.tobytes() == batch[key].tobytes()
            if step >= 6:
                assert resumed[step - 6][key].tobytes() == batch[key].tobytes()


def test_mixtures_of_mixtures_and_draws(animals, pets):
    inner = MixtureSource([animals, pets], labels="by_name")
    few = FewShotSource(pets, per_class=2)
    source = MixtureSource([inner, few], labels="by_name")
    examples = evaluated(source)
    assert len(examples["label"]) == 45
    np.testing.assert_array_equal(np.bincount(examples["label"][39:]), [0, 0, 2, 2, 0, 2])
    assert source.part_of(3) == (animals, 3)
    part, place = source.part_of(40)
    assert part is pets and place == few.part_of(1)[1]


def test_bad_records_are_named_by_their_own_source(animals, tmp_path):
    records = [tiny_records.foreign_example(tiny_records.png(i), i + 5) for i in range(2)]
    path = tiny_records.write_records(tmp_path / "records", records)
    source = MixtureSource([animals, TFRecordSource(path, 6)], labels="separate")
    data = Input(source, PLAIN, 4, training=False)
    assert re.search("records record 1: label 6 is outside 0..5", data.diagnose())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": "joined"}, "labels must be 'shared', 'separate' or 'by_name', got 'joined'"),
        ({"weights": [1]}, "1 weights for 2 sources"),
        ({"weights": [1, -1]}, "weights must be at least 0 and not all 0"),
    ],
)
def test_arguments_that_do_not_fit(animals, pets, arguments, message):
    with pytest.raises(ValueError, match=message):
        MixtureSource([animals, pets], **({"labels": "separate"} | arguments))


def test_one_source_is_no_mixture_and_names_are_needed(animals, pets):
    with pytest.raises(ValueError, match="at least two sources, got tiny"):
        MixtureSource([animals])
    nameless = TFRecordSource(pets.name, 3, tiny_records.FOREIGN_FEATURES)
    with pytest.raises(ValueError, match="'by_name' needs class names; .* has none"):
        MixtureSource([animals, nameless], labels="by_name")


def test_weights_and_class_weights_contradict_each_other(animals, pets):
    source = MixtureSource([animals, pets], weights=[1, 2], labels="separate")
    with pytest.raises(ValueError, match="cannot both say what is shown how often"):
        Input(source, PLAIN, 4, training=True, shuffle="global", class_weights="balanced")
    with pytest.raises(ValueError, match=r"weights of tiny.* need Input.shuffle = 'global'"):
        Input(source, PLAIN, 4, training=True)
