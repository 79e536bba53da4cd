"""What training is shown: any order, from any step, repeated examples, weighted classes."""

import collections
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tiny_records

from vit_tf.data import tfrecord
from vit_tf.data.input import Input
from vit_tf.data.op_registry import register_op
from vit_tf.data.tfrecord_source import TFRecordSource

SHARDS = [5, 4, 6, 8]
NUM_EXAMPLES = sum(SHARDS)
TRAIN = "decode|random_crop(8, padding=2)|flip_lr|value_range(-1, 1)"
PLAIN = "decode|central_crop(8)"
DECODED = collections.Counter()


@register_op("count_decodes_in_test")
def _count_decodes():
    def count(number: np.ndarray) -> np.ndarray:
        DECODED[int(number)] += 1
        return number

    def count_image(features):
        first_pixel = tf.cast(features["image"][0, 0, 0], tf.int64)
        counted = tf.ensure_shape(tf.numpy_function(count, [first_pixel], tf.int64), [])
        image = features["image"] + tf.cast(counted - first_pixel, tf.uint8)
        return features | {"image": image}

    return count_image


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> TFRecordSource:
    pattern = tiny_records.write_foreign(tmp_path_factory.mktemp("foreign"), SHARDS)
    return TFRecordSource(pattern, num_classes=5, features=tiny_records.FOREIGN_FEATURES)


def one_file(folder, count: int, labels=None) -> TFRecordSource:
    """Records whose images all have the record's number for pixels."""
    labels = [0] * count if labels is None else labels
    images = [tf.io.encode_png(np.full((8, 8, 3), i % 256, np.uint8)).numpy() for i in range(count)]
    records = [tiny_records.foreign_example(i, n) for i, n in zip(images, labels, strict=True)]
    path = tiny_records.write_records(folder / "records", records)
    return TFRecordSource(path, num_classes=max(labels) + 1)


def take(dataset: tf.data.Dataset, count: int) -> list[dict[str, np.ndarray]]:
    return list(dataset.take(count).as_numpy_iterator())


def indices(batches: list[dict[str, np.ndarray]]) -> list[int]:
    return [int(index) for batch in batches for index in batch["index"]]


def assert_same(left: list[dict], right: list[dict]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert all(one[key].tobytes() == other[key].tobytes() for key in one)


def context(worker: int, workers: int, replicas: int | None = None) -> tf.distribute.InputContext:
    return tf.distribute.InputContext(workers, worker, replicas or workers)


# Any order of all records


def test_global_epochs_show_every_example_once_with_its_own_image(source):
    data = Input(source, PLAIN, 1, training=True, shuffle="global")
    batches = take(data(), 3 * NUM_EXAMPLES)
    for batch in batches:
        expected = tiny_records.pixels(int(batch["index"][0]))
        np.testing.assert_array_equal(batch["image"][0], expected)
    epochs = np.array(indices(batches)).reshape(3, NUM_EXAMPLES)
    assert (np.sort(epochs) == np.arange(NUM_EXAMPLES)).all()
    assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize(("cache", "repeats"), [(False, 1), (True, 3)])
def test_global_order_resumes_bit_for_bit(source, cache, repeats):
    data = Input(source, TRAIN, 6, True, shuffle="global", cache=cache, repeats=repeats, seed=4)
    whole = take(data(), 14)
    for start_step in (1, 12):
        assert_same(take(data(start_step=start_step), 14 - start_step), whole[start_step:])


def test_global_workers_read_disjoint_shares_of_the_one_worker_batch(source):
    data = Input(source, TRAIN, 8, training=True, shuffle="global")
    whole = take(data(), 5)
    parts = [take(data(context(worker, 2)), 5) for worker in range(2)]
    for step, batch in enumerate(whole):
        for key in batch:
            joined = np.concatenate([part[step][key] for part in parts])
            assert joined.tobytes() == batch[key].tobytes()


def test_global_files_of_a_worker_are_its_own(source):
    data = Input(source, PLAIN, 4, training=True, shuffle="global", shard_by="files")
    for worker, numbers in enumerate([[*range(5), *range(9, 15)], [*range(5, 9), *range(15, 23)]]):
        seen = indices(take(data(context(worker, 2)), len(numbers)))
        assert sorted(set(seen)) == numbers


def test_global_evaluation_is_still_in_file_order(source):
    data = Input(source, PLAIN, 5, training=False, shuffle="global")
    assert indices(take(data(), -1))[:NUM_EXAMPLES] == list(range(NUM_EXAMPLES))


def test_cache_and_file_reading_give_the_same_bits(source):
    cached = Input(source, TRAIN, 6, training=True, shuffle="global", cache=True)
    read = Input(source, TRAIN, 6, training=True, shuffle="global")
    assert_same(take(cached(), 9), take(read(), 9))


def test_corrupt_records_are_passed_over_in_any_order(tmp_path):
    source = one_file(tmp_path, 8)
    path = Path(source.segments[0].path)
    bounds = tfrecord.record_bounds(source.segments[0])
    content = bytearray(path.read_bytes())
    content[bounds[3] + 20] ^= 1
    path.write_bytes(content)
    data = Input(source, PLAIN, 7, True, shuffle="global", on_bad_record="skip")
    assert sorted(indices(take(data(), 1))) == [0, 1, 2, 4, 5, 6, 7]
    strict = Input(source, PLAIN, 8, training=True, shuffle="global")
    with pytest.raises(tf.errors.DataLossError):
        take(strict(), 1)
    assert "record 3: corrupt TFRecord (CRC mismatch in the" in strict.diagnose()


def test_a_truncated_file_misses_records_by_their_number(tmp_path):
    source = one_file(tmp_path, 8)
    path = Path(source.segments[0].path)
    content = path.read_bytes()
    path.write_bytes(content[: tfrecord.record_bounds(source.segments[0])[6]])
    strict = Input(source, PLAIN, 8, training=True, shuffle="global")
    with pytest.raises(tf.errors.OpError):
        take(strict(), 1)
    assert "the record is empty or missing" in strict.diagnose()
    data = Input(source, PLAIN, 6, True, shuffle="global", on_bad_record="skip")
    assert sorted(indices(take(data(), 1))) == list(range(6))


# What resuming costs


@pytest.mark.parametrize("shuffle", ["window", "global"])
def test_resume_decodes_only_what_it_delivers(tmp_path, shuffle):
    source = one_file(tmp_path, 40)
    preprocess = "decode|count_decodes_in_test|central_crop(8)"
    serial = {"num_parallel_calls": 1, "prefetch": 1}
    data = Input(source, preprocess, 4, training=True, shuffle=shuffle, **serial)
    DECODED.clear()
    delivered = indices(take(data(start_step=7), 3))
    # Prefetching may have begun with at most the few batches that follow.
    assert sum(DECODED.values()) <= len(delivered) + 3 * 4
    assert set(delivered) <= set(DECODED)


def test_global_resume_reads_no_record_before_its_step(tmp_path):
    source = one_file(tmp_path, 40)
    data = Input(source, PLAIN, 4, training=True, shuffle="global", num_parallel_calls=1)
    order = indices(take(data(), 10))
    path = Path(source.segments[0].path)
    content = bytearray(path.read_bytes())
    for seen in order[:28]:
        content[tfrecord.record_bounds(source.segments[0])[seen] + 20] ^= 1
    path.write_bytes(content)  # reading any of these would now fail
    assert indices(take(data(start_step=7), 1)) == order[28:32]


# The same bytes in another process


SCRIPT = """
import hashlib, sys
from vit_tf.data import Input, TFRecordSource
features = {"image": "image/encoded", "label": "image/class/label"}
source = TFRecordSource(sys.argv[1], 5, features)
for options in (dict(shuffle="global"), dict(repeats=3),
                dict(shuffle="global", class_weights="balanced")):
    data = Input(source, sys.argv[2], 6, training=True, seed=9, **options)
    digest = hashlib.sha256()
    for batch in data().take(9).as_numpy_iterator():
        for key in sorted(batch):
            digest.update(batch[key].tobytes())
    print("digest", digest.hexdigest())
"""


@pytest.mark.slow
def test_two_processes_see_the_same_bytes(source):
    command = [sys.executable, "-c", SCRIPT, source.name, TRAIN]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2)]
    digests = [[line for line in run.stdout.splitlines() if "digest" in line] for run in runs]
    assert digests[0] == digests[1] and len(set(digests[0])) == 3


# Repeated augmentation


@pytest.mark.parametrize("shuffle", ["window", "global"])
@pytest.mark.parametrize("replicas", [1, 2])
def test_repeats_are_different_views_of_one_example(source, shuffle, replicas):
    data = Input(source, TRAIN, 6, training=True, shuffle=shuffle, repeats=3)
    batches = take(data(context(0, 1, replicas)), 6 * replicas)
    views = collections.defaultdict(set)
    times = collections.Counter(indices(batches[: 3 * replicas]))
    for batch in batches[: 3 * replicas]:  # 18 of the 23 positions of the first epoch
        for index, image in zip(batch["index"], batch["image"], strict=True):
            views[int(index)].add(image.tobytes())
    assert set(times.values()) == {3} and len(times) == 6
    assert sum(map(len, views.values())) > 15


def test_repeated_examples_are_dealt_to_replicas_in_turn(source):
    data = Input(source, PLAIN, 12, training=True, repeats=3)
    flat = indices(take(data(), 1))
    for workers, replicas in ((1, 4), (2, 4)):
        local = replicas // workers
        for worker in range(workers):
            batches = take(data(context(worker, workers, replicas)), local)
            for replica, batch in enumerate(batches, worker * local):
                assert indices([batch]) == flat[replica::replicas]


@pytest.mark.parametrize("shuffle", ["window", "global"])
def test_repeats_resume_across_epochs(source, shuffle):
    data = Input(source, TRAIN, 6, training=True, repeats=3, shuffle=shuffle)
    whole = take(data(context(1, 2)), 12)
    assert_same(take(data(context(1, 2), start_step=5), 7), whole[5:])


def test_workers_of_repeated_examples_are_disjoint_and_complete(source):
    data = Input(source, TRAIN, 8, training=True, repeats=3)
    whole = take(data(), 6)
    parts = [take(data(context(worker, 2)), 6) for worker in range(2)]
    for step, batch in enumerate(whole):
        joined = np.concatenate([part[step]["image"] for part in parts])
        views = [sorted(image.tobytes() for image in images) for images in (joined, batch["image"])]
        assert views[0] == views[1]


@pytest.mark.parametrize(
    ("case", "count", "repeats", "world"),
    [("n600_repeats3_world4", 600, 3, 4), ("n515_repeats2_world2", 515, 2, 2)],
)
def test_replicas_get_the_lists_of_deit(shared, tmp_path, case, count, repeats, world):
    golden = np.load(shared / "golden/behaviour/repeated_augmentation/io.npz")
    source = one_file(tmp_path, count)
    # A window of one record leaves the file's order, as the lists were made without shuffling.
    data = Input(source, PLAIN, 128, True, shuffle_window=1, repeats=repeats)
    for worker in range(world):
        expected = golden[f"{case}/rank{worker}"].tolist()
        steps = len(expected) * world // 128
        assert steps == data.steps_per_epoch
        assert indices(take(data(context(worker, world)), steps)) == expected


# Weighted classes


LABELS = [0] * 30 + [1] * 8 + [2] * 2


@pytest.mark.parametrize(
    ("class_weights", "expected"),
    [("balanced", [40, 40, 40]), ([3, 1, 0], [90, 30, 0]), ("square_root", [68, 35, 17])],
)
def test_classes_get_their_shares(tmp_path, class_weights, expected):
    data = Input(
        one_file(tmp_path, 40, LABELS),
        PLAIN,
        40,
        True,
        shuffle="global",
        class_weights=class_weights,
    )
    batches = take(data(), 3)
    shown = np.bincount(np.concatenate([batch["label"] for batch in batches]), minlength=3)
    np.testing.assert_allclose(shown, expected, atol=3)
    times = np.bincount(indices(batches), minlength=40)
    for label in range(3):
        of_class = times[np.array(LABELS) == label]
        assert of_class.max() - of_class.min() <= 1
    resumed = take(data(start_step=2), 1)
    assert_same(resumed, batches[2:])


def test_balance_needs_a_label_of_every_record(tmp_path):
    source = one_file(tmp_path, 40, LABELS)
    narrow = TFRecordSource(source.name, num_classes=2)
    options = {"shuffle": "global", "class_weights": "balanced"}
    with pytest.raises(ValueError, match=r"records record 38: no label in 0\.\.1\. Fix or remove"):
        Input(narrow, PLAIN, 4, True, **options)()
    skipping = Input(narrow, PLAIN, 40, True, on_bad_record="skip", **options)
    assert set(np.unique(take(skipping(), 1)[0]["label"])) == {0, 1}
    assert len(skipping.skipped) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shuffle": "globally"}, "shuffle must be 'window' or 'global', got 'globally'"),
        ({"repeats": 0}, "repeats must be at least 1, got 0"),
        ({"shuffle": "global", "shuffle_window": 5}, "'global' has no window"),
        ({"class_weights": "balanced"}, "class_weights need Input.shuffle = 'global'"),
        ({"repeats": 3, "shard_by": "files"}, "repeats need Input.shard_by = 'examples'"),
        ({"repeats": 3, "training": False}, "Evaluation shows every example once"),
    ],
)
def test_what_does_not_go_together_is_said(source, arguments, message):
    with pytest.raises(ValueError, match=message):
        Input(source, PLAIN, **({"batch_size": 4, "training": True} | arguments))


@pytest.mark.parametrize(
    ("class_weights", "message"),
    [
        ("equal", "must be 'balanced' or 'square_root' or one weight a class, got 'equal'"),
        ([1, 2], "2 class_weights for 5 classes"),
        ([1, 2, 3, 4, -1], "class_weights must be at least 0 and not all 0"),
    ],
)
def test_class_weights_that_do_not_fit(source, class_weights, message):
    with pytest.raises(ValueError, match=message):
        Input(source, PLAIN, 4, True, shuffle="global", class_weights=class_weights)()
