"""Batches: order, resume, sharding by worker, exact evaluation."""

import collections
import itertools

import numpy as np
import pytest
import tensorflow as tf
import tiny_records
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.python.framework import op_def_registry
from tiny_records import assert_same

from vit_tf.data.input import Input
from vit_tf.data.tfds_source import TFDSSource
from vit_tf.data.tfrecord_source import TFRecordSource

TRAIN = "decode|random_crop(8, padding=2)|flip_lr|value_range(-1, 1)"
EVAL = "decode|resize(8)|value_range(-1, 1)"
SHARDS = [5, 4, 6, 8]
NUM_EXAMPLES = sum(SHARDS)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> TFRecordSource:
    pattern = tiny_records.write_foreign(tmp_path_factory.mktemp("foreign"), SHARDS)
    return TFRecordSource(pattern, num_classes=5, features=tiny_records.FOREIGN_FEATURES)


def take(dataset: tf.data.Dataset, count: int | None = None) -> list[dict[str, np.ndarray]]:
    return list(dataset.take(-1 if count is None else count).as_numpy_iterator())


def indices(batches: list[dict[str, np.ndarray]]) -> list[int]:
    return [int(index) for batch in batches for index in batch["index"]]


def context(worker: int, workers: int, replicas: int | None = None) -> tf.distribute.InputContext:
    return tf.distribute.InputContext(workers, worker, replicas or workers)


# Elements


def test_elements_have_the_promised_types_and_static_shapes(source):
    spec = Input(source, TRAIN, 6, training=True)().element_spec
    assert spec == {
        "image": tf.TensorSpec([6, 8, 8, 3], tf.float32),
        "label": tf.TensorSpec([6], tf.int32),
        "mask": tf.TensorSpec([6], tf.float32),
        "index": tf.TensorSpec([6], tf.int64),
    }


def test_tfds_and_foreign_layout_give_the_same_batches(source, tmp_path):
    folder = tiny_records.write_tfds(tmp_path, {"train": SHARDS})
    from_tfds = Input(TFDSSource(folder, "train"), TRAIN, 6, training=True)
    assert_same(take(from_tfds(), 6), take(Input(source, TRAIN, 6, training=True)(), 6))


def test_image_label_and_index_belong_together(source):
    for batch in take(Input(source, "decode|central_crop(8)", 5, training=False)()):
        for image, label, index in zip(batch["image"], batch["label"], batch["index"], strict=True):
            if index >= 0:
                np.testing.assert_array_equal(image, tiny_records.pixels(int(index)))
                assert label == index % 5


def test_facts_come_from_source_and_batch(source):
    train = Input(source, TRAIN, 6, training=True)
    assert train.examples_per_epoch == NUM_EXAMPLES
    assert train.steps_per_epoch == NUM_EXAMPLES / 6
    assert train.num_classes == 5 and train.class_names is None
    assert train.image_shape == (8, 8, 3)
    assert str(train.preprocess) == TRAIN


# Training order


def test_each_epoch_shows_every_example_once_in_another_order(source):
    seen = indices(take(Input(source, EVAL, 1, training=True)(), 3 * NUM_EXAMPLES))
    epochs = [seen[i * NUM_EXAMPLES : (i + 1) * NUM_EXAMPLES] for i in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(NUM_EXAMPLES))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_two_runs_are_bit_for_bit_the_same_whatever_the_global_seed(source):
    tf.random.set_seed(1)
    first = take(Input(source, TRAIN, 6, training=True, seed=3)(), 9)
    tf.random.set_seed(2)
    assert_same(first, take(Input(source, TRAIN, 6, training=True, seed=3)(), 9))
    slow = Input(source, TRAIN, 6, training=True, seed=3, num_parallel_calls=1, prefetch=1)
    assert_same(first, take(slow(), 9))
    tf.random.set_seed(2)
    other = take(Input(source, TRAIN, 6, training=True, seed=4)(), 9)
    assert indices(first) != indices(other)


@pytest.mark.parametrize("window", [None, 1, 7])
def test_resume_continues_the_very_stream(source, window):
    train = Input(source, TRAIN, 6, training=True, shuffle_window=window)
    whole = take(train(), 14)  # 84 examples, more than three epochs
    for start_step in (1, 4, 12):
        rest = take(train(start_step=start_step), 14 - start_step)
        assert_same(rest, whole[start_step:])


@settings(max_examples=4, deadline=None)
@given(batch_size=st.integers(1, 30), start_step=st.integers(0, 12), seed=st.integers(0, 2**31))
def test_resume_for_any_batch_and_step(source, batch_size, start_step, seed):
    train = Input(source, TRAIN, batch_size, training=True, seed=seed)
    assert_same(take(train(), start_step + 2)[start_step:], take(train(start_step=start_step), 2))


def test_resume_decodes_nothing_that_was_seen(tmp_path):
    records = [tiny_records.foreign_example(tiny_records.png(i), 0) for i in range(8)]
    records[2] = tiny_records.foreign_example(b"unreadable", 0)
    source = TFRecordSource(tiny_records.write_records(tmp_path / "records", records), 1)
    train = Input(source, EVAL, 1, training=True, shuffle_window=1, num_parallel_calls=1)
    with pytest.raises(tf.errors.InvalidArgumentError):
        take(train(), 4)
    assert indices(take(train(start_step=3), 4)) == [3, 4, 5, 6]


def test_cache_changes_nothing(source):
    cached = Input(source, TRAIN, 6, training=True, cache=True)
    assert_same(take(cached(), 9), take(Input(source, TRAIN, 6, training=True)(), 9))
    evaluation = Input(source, EVAL, 6, training=False, cache=True)
    assert_same(take(evaluation()), take(Input(source, EVAL, 6, training=False)()))


def test_a_repeated_example_is_augmented_anew(source):
    batches = take(Input(source, TRAIN, NUM_EXAMPLES, training=True)(), 4)
    views = collections.defaultdict(set)
    for batch in batches:
        for image, index in zip(batch["image"], batch["index"], strict=True):
            views[int(index)].add(image.tobytes())
    assert sum(len(seen) for seen in views.values()) > 3.5 * NUM_EXAMPLES


def test_whole_epoch_is_mixed_across_files(source):
    order = indices(take(Input(source, EVAL, NUM_EXAMPLES, training=True)(), 1))
    in_file = np.searchsorted(np.cumsum(SHARDS), order, side="right")
    assert np.count_nonzero(np.diff(in_file)) > len(SHARDS)


# Workers


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("training", [True, False])
def test_workers_union_is_the_one_worker_batch(source, workers, training):
    data = Input(source, TRAIN if training else EVAL, 8, training=training)
    steps = 7 if training else None
    whole = take(data(), steps)
    parts = [take(data(context(worker, workers)), steps) for worker in range(workers)]
    joined = [
        {key: np.concatenate([batch[key] for batch in batches]) for key in whole[0]}
        for batches in zip(*parts, strict=True)
    ]
    for one, other in zip(joined, whole, strict=True):
        if training:
            assert_same([one], [other])
        else:  # padding stands at each worker's end
            assert sorted(one["index"]) == sorted(other["index"])


def test_resumed_worker_continues_its_own_share(source):
    data = Input(source, TRAIN, 8, training=True)
    whole = take(data(context(1, 2)), 9)
    assert_same(take(data(context(1, 2), start_step=5), 4), whole[5:])


def test_replicas_of_a_worker_take_consecutive_elements(source):
    data = Input(source, TRAIN, 8, training=True)
    whole = take(data(), 3)
    halves = take(data(context(0, 1, replicas=2)), 6)
    assert [len(half["label"]) for half in halves] == [4] * 6
    assert indices(halves) == indices(whole)


def test_distributed_dataset_sees_the_global_batches(source):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    data = Input(source, TRAIN, 8, training=True)
    iterator = iter(strategy.distribute_datasets_from_function(data))
    seen = []
    for _ in range(4):
        batch = next(iterator)
        seen += np.concatenate(strategy.experimental_local_results(batch["index"])).tolist()
    assert seen == indices(take(data(), 4))


def test_files_are_read_by_one_worker_each(source):
    data = Input(source, EVAL, 4, training=True, shard_by="files")
    for worker, numbers in enumerate([[*range(5), *range(9, 15)], [*range(5, 9), *range(15, 23)]]):
        batches = take(data(context(worker, 2)), 2 * len(numbers))
        assert sorted(set(indices(batches))) == numbers
        assert_same(take(data(context(worker, 2), start_step=3), 2), batches[3:5])


def test_fewer_files_than_workers(source):
    data = Input(source, EVAL, 8, training=True, shard_by="files")
    with pytest.raises(ValueError, match="has 4 files for 8 workers: write more shards or set"):
        data(context(0, 8))


@pytest.mark.parametrize(
    ("batch_size", "workers", "replicas", "nearest"),
    [(10, 4, 4, "8 or 12"), (3, 2, 4, "4"), (6, 1, 4, "4 or 8")],
)
def test_batch_that_replicas_do_not_divide(source, batch_size, workers, replicas, nearest):
    message = (
        rf"batch_size {batch_size} cannot be divided among {replicas} replicas "
        rf"\({workers} workers\); the nearest that can: {nearest}\."
    )
    with pytest.raises(ValueError, match=message):
        Input(source, EVAL, batch_size, training=True)(context(0, workers, replicas))


# Evaluation


@pytest.mark.parametrize("shard_by", ["examples", "files"])
@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [4, 40])
def test_evaluation_counts_every_example_exactly_once(source, batch_size, workers, shard_by):
    data = Input(source, EVAL, batch_size, training=False, shard_by=shard_by)
    parts = [take(data(context(worker, workers))) for worker in range(workers)]
    assert {len(part) for part in parts} == {data.eval_steps(workers)}
    real = []
    for batch in itertools.chain.from_iterable(parts):
        assert len(batch["label"]) == batch_size // workers
        padding = batch["mask"] == 0
        assert (batch["index"][padding] == -1).all()
        assert (batch["image"][padding] == -1).all()  # black
        assert not batch["label"][padding].any()
        real += batch["index"][~padding].tolist()
    assert sorted(real) == list(range(NUM_EXAMPLES))


@settings(max_examples=5, deadline=None)
@given(first=st.integers(0, 20), count=st.integers(1, 3), batch_size=st.integers(1, 30))
def test_evaluation_of_any_sub_split_is_exact(tfds_train, first, count, batch_size):
    source = TFDSSource(tfds_train, f"train[{first}:{first + count}]")
    data = Input(source, "decode|central_crop(8)", batch_size, training=False)
    batches = take(data())
    images = [b["image"][i] for b in batches for i in np.flatnonzero(b["mask"])]
    expected = [tiny_records.pixels(i) for i in range(first, first + count)]
    np.testing.assert_array_equal(images, expected)
    assert len(batches) == data.eval_steps() == -(-count // batch_size)


@pytest.fixture(scope="module")
def tfds_train(tmp_path_factory) -> str:
    return tiny_records.write_tfds(tmp_path_factory.mktemp("tfds"), {"train": SHARDS})


def test_evaluation_is_in_file_order_from_any_step(source):
    data = Input(source, EVAL, 5, training=False)
    batches = take(data())
    assert indices(batches)[:NUM_EXAMPLES] == list(range(NUM_EXAMPLES))
    assert_same(take(data(start_step=3)), batches[3:])


# Arguments


def test_random_ops_are_for_training(source):
    with pytest.raises(ValueError, match=r"cannot use random ops \(random_crop, flip_lr\)"):
        Input(source, TRAIN, 4, training=False)


def test_open_image_size_is_refused_at_once(source):
    with pytest.raises(ValueError, match=r"no fixed size .* Add resize\(height, width\)"):
        Input(source, "decode|value_range(-1, 1)", 4, training=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_bad_record": "ignore"}, "on_bad_record must be 'error' or 'skip', got 'ignore'"),
        ({"shard_by": "file"}, "shard_by must be 'examples' or 'files', got 'file'"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"shuffle_window": 0}, "shuffle_window must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(source, arguments, message):
    with pytest.raises(ValueError, match=message):
        Input(
            **{"source": source, "preprocess": EVAL, "batch_size": 4, "training": True} | arguments
        )


@pytest.mark.parametrize("training", [True, False])
def test_deterministic_tensorflow_keeps_the_pipeline_parallel(source, training):
    # It rewrites a pipeline whose dataset functions hold ops with effects (Assert, and dataset ops
    # that it does not know) so that one element is prepared at a time: half the speed on two cores.
    harmless = {"TFRecordDataset", "RangeDataset", "TensorSliceDataset"}
    ops = "random_crop(4, padding=2)|flip_lr" if training else "central_crop(4)"
    data = Input(source, f"decode|resize(6)|{ops}", 5, training=training)
    variant = tf.data.experimental.to_variant(data())
    graph = tf.compat.v1.GraphDef.FromString(
        tf.raw_ops.DatasetToGraphV2(input_dataset=variant).numpy()
    )
    found = {node.op for function in graph.library.function for node in function.node_def}
    assert {op for op in found if op_def_registry.get(op).is_stateful} <= harmless
