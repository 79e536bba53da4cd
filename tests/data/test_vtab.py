"""VTAB's 19 tasks: splits, labels and classes are the reference's; on stand-ins of the data."""

import bisect
import functools

import numpy as np
import pytest
import tensorflow as tf
import tiny_vtab

from vit_tf import planning
from vit_tf.data.vtab_source import VTABSource
from vit_tf.data.vtab_tasks import GROUPS, SPLITS, TASKS

# What the data sets hold in TFDS, and where the reference takes val200 and test from it
# (task_adaptation/data/*_test.py: numbers of examples; *.py: percentages).
THREE = "validation[:200]"
REFERENCE = {
    "caltech101": (102, {"train": 3060, "test": 6084}, "train[2754:2954]", "test"),
    "cifar100": (100, {"train": 50_000, "test": 10_000}, "train[45000:45200]", "test"),
    "dtd": (47, {"train": 1880, "validation": 1880, "test": 1880}, THREE, "test"),
    "oxford_flowers102": (102, {"train": 1020, "validation": 1020, "test": 6149}, THREE, "test"),
    "oxford_iiit_pet": (37, {"train": 3680, "test": 3669}, "train[2944:3144]", "test"),
    "sun397": (397, {"train": 76_128, "validation": 10_875, "test": 21_750}, THREE, "test"),
    "svhn": (10, {"train": 73_257, "test": 26_032}, "train[65931:66131]", "test"),
    "patch_camelyon": (2, {"train": 262_144, "validation": 32_768, "test": 32_768}, THREE, "test"),
    "eurosat": (10, {"train": 27_000}, "train[16200:16400]", "train[21600:]"),
    "resisc45": (45, {"train": 31_500}, "train[18900:19100]", "train[25200:]"),
    "diabetic_retinopathy": (
        5,
        {"train": 35_126, "validation": 10_906, "test": 42_670},
        THREE,
        "test",
    ),
    "clevr_count": (8, {"train": 70_000, "validation": 15_000}, "train[63000:63200]", "validation"),
    "clevr_distance": (
        6,
        {"train": 70_000, "validation": 15_000},
        "train[63000:63200]",
        "validation",
    ),
    "dmlab": (6, {"train": 65_550, "validation": 22_628, "test": 22_735}, THREE, "test"),
    "dsprites_location": (16, {"train": 737_280}, "train[589824:590024]", "train[663552:]"),
    "dsprites_orientation": (16, {"train": 737_280}, "train[589824:590024]", "train[663552:]"),
    "kitti_distance": (4, {"train": 6347, "validation": 423, "test": 711}, THREE, "test"),
    "smallnorb_azimuth": (18, {"train": 24_300, "test": 24_300}, "test[:200]", "test[12150:]"),
    "smallnorb_elevation": (9, {"train": 24_300, "test": 24_300}, "test[:200]", "test[12150:]"),
}


def cut(expression: str, of: dict[str, list]) -> list:
    """What a split expression of the simple kind here takes of lists."""
    name, _, places = expression.partition("[")
    first, _, last = places.removesuffix("]").partition(":")
    return of[name][slice(int(first or 0), int(last) if last else None)]


def test_there_are_seven_four_and_eight_tasks():
    groups = [task.group for task in TASKS.values()]
    assert [groups.count(group) for group in GROUPS] == [7, 4, 8]
    assert TASKS.keys() == REFERENCE.keys()


@pytest.mark.parametrize("name", TASKS)
def test_splits_of_the_real_data_are_the_reference_s(name):
    task, (classes, sizes, val, test) = TASKS[name], REFERENCE[name]
    assert task.num_classes == classes
    expressions = [task.split(split, sizes).replace("[0:", "[:") for split in SPLITS]
    assert expressions == ["train[:800]", val, f"train[:800]+{val}", test]
    counted = cut(test, {split: range(size) for split, size in sizes.items()})
    assert len(counted) == task.test_examples == task.num_examples("test")


# Labels, derived again from the features as they were written


def stored(feature):
    return lambda example: example[feature]


def clevr_distance(example):
    """(0, 8], (8, 8.5], ..., (10, 100] are the classes 0 to 5."""
    closest = min(float(one["pixel_coords"][2]) for one in example["objects"])
    return bisect.bisect_left([8.0, 8.5, 9.0, 9.5, 10.0], closest)


def kitti_distance(example):
    """Below 8 m, to 20 m, beyond, and 3 where there is no car (0), van (1) or truck (2)."""
    depths = [float(o["location"][2]) for o in example["objects"] if o["type"] in (0, 1, 2)]
    return bisect.bisect_left([8.0, 20.0], min(depths)) if depths else 3


DERIVED = {
    "clevr_count": lambda example: len(example["objects"]) - 3,
    "clevr_distance": clevr_distance,
    "kitti_distance": kitti_distance,
    "dsprites_location": lambda example: example["label_x_position"] // 2,
    # Bins of 2.5 orientations: 0, 1, 2 | 3, 4 | 5, 6, 7 | 8, 9 | ...
    "dsprites_orientation": lambda example: 2 * example["label_orientation"] // 5,
    "smallnorb_azimuth": stored("label_azimuth"),
    "smallnorb_elevation": stored("label_elevation"),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Data directory, and for each data set its examples by split."""
    data_dir = tmp_path_factory.mktemp("tfds")
    datasets = dict.fromkeys(task.dataset for task in TASKS.values())
    return data_dir, {name: tiny_vtab.write(name, data_dir) for name in datasets}


def read(source):
    """Encoded images and labels of a source, in its order."""
    parts = [
        tf.data.TFRecordDataset(one.path).skip(one.first_record).take(one.num_records)
        for one in source.segments
    ]
    records = functools.reduce(tf.data.Dataset.concatenate, parts)
    examples = records.map(source.parse).batch(source.num_examples).get_single_element()
    return examples["image"].numpy().tolist(), examples["label"].numpy().tolist()


@pytest.mark.parametrize("name", TASKS)
def test_examples_and_labels_of_every_split(name, written):
    data_dir, examples = written
    task, of = TASKS[name], examples[TASKS[name].dataset]
    sizes = {split: len(some) for split, some in of.items()}
    derive = DERIVED.get(name, stored("label"))
    sources = {split: VTABSource(name, split, str(data_dir)) for split in SPLITS}
    every = set()
    for split in ("train800val200", "test"):
        parts = task.split(split, sizes).split("+")
        expected = [example for part in parts for example in cut(part, of)]
        images, labels = read(sources[split])
        assert labels == [derive(example) for example in expected]
        if task.scale == 1:
            assert images == [example["image"].getvalue() for example in expected]
        every |= set(labels)
    train, val, both = (sources[split].segments for split in SPLITS[:3])
    assert both == train + val
    assert [sources[split].num_examples for split in SPLITS[:2]] == [800, 200]
    assert every <= set(range(task.num_classes))
    assert len(every) > 0.9 * task.num_classes


def test_dsprites_images_are_black_and_white(written):
    data_dir, examples = written
    images, _ = read(VTABSource("dsprites_location", "val200", str(data_dir)))
    of_train = examples["dsprites"]["train"][1920:1924]  # after 80 % of 2,400
    largest = [int(tf.reduce_max(tf.io.decode_png(e["image"].getvalue()))) for e in of_train]
    values = [int(tf.reduce_max(tf.io.decode_png(image))) for image in images[:4]]
    assert values == [255 * value for value in largest]
    assert sorted(set(values)) == [0, 255]


@pytest.mark.parametrize("name", TASKS)
def test_no_test_example_is_trained_on(name):
    sizes = tiny_vtab.split_sizes(TASKS[name].dataset)
    places = {split: [(split, n) for n in range(size)] for split, size in sizes.items()}
    parts = TASKS[name].split("train800val200", sizes).split("+")
    trained = [place for part in parts for place in cut(part, places)]
    assert len(set(trained)) == 1000
    assert not set(trained) & set(cut(TASKS[name].split("test", sizes), places))


@pytest.mark.parametrize(
    ("distance", "label"),
    [(0.1, 0), (8.0, 0), (8.01, 1), (8.5, 1), (9.3, 3), (10.0, 4), (10.01, 5), (99.0, 5)],
)
def test_borders_of_clevr_s_bins_belong_below(distance, label):
    points = tf.constant([[0.0, 0.0, 500.0], [0.0, 0.0, distance]])
    assert TASKS["clevr_distance"].labels.label({"objects/pixel_coords": points}) == label


@pytest.mark.parametrize(
    ("types", "depths", "label"),
    [
        ([0], [8.0], 0),
        ([1, 3], [8.1, 2.0], 1),  # the pedestrian is closer and does not count
        ([2, 0], [90.0, 20.0], 1),
        ([2], [20.1], 2),
        ([3, 7], [5.0, 5.0], 3),
        ([], [], 3),
    ],
)
def test_kitti_s_closest_vehicle(types, depths, label):
    points = tf.reshape(tf.constant([[0.0, 0.0, d] for d in depths], tf.float32), [-1, 3])
    features = {"objects/type": tf.constant(types, tf.int64), "objects/location": points}
    assert TASKS["kitti_distance"].labels.label(features) == label


def test_dsprites_orientations_fill_sixteen_bins():
    label = TASKS["dsprites_orientation"].labels.label
    bins = [int(label({"label_orientation": tf.constant(n, tf.int64)})) for n in range(40)]
    assert bins == [int(np.floor(n / 2.5)) for n in range(40)]
    assert np.bincount(bins).tolist() == [3, 2] * 8


# What goes wrong


def test_missing_data_says_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="(?s)tfds build resisc45 .*, after: download NWPU"):
        VTABSource("resisc45", "train800", str(tmp_path))
    with pytest.raises(ValueError, match="no task 'kiti_distance'. Did you mean 'kitti_distance'"):
        VTABSource("kiti_distance", "train800", str(tmp_path))


def test_a_plan_does_without_the_data(tmp_path):
    with planning.planning() as named:
        sizes = [VTABSource("dmlab", split, str(tmp_path)).num_examples for split in SPLITS]
    assert sizes == [800, 200, 1000, 22_735]
    assert "tfds build dmlab" in named[0].problem


def test_data_that_vtab_cannot_use_is_refused(tmp_path, written, caplog):
    data_dir, _ = written
    with pytest.raises(ValueError, match="splits are train800, val200, .*; given 'train'"):
        VTABSource("dtd", "train", str(data_dir))
    small = {"train": 900, "validation": 199, "test": 5}
    with pytest.raises(ValueError, match="dtd is too small: VTAB takes 800 examples of train"):
        TASKS["dtd"].split("train800", small)
    with pytest.raises(ValueError, match="dtd has no split 'validation'; it has test, train"):
        TASKS["dtd"].split("test", {"train": 900, "test": 5})
    tiny_vtab.write("clevr", tmp_path, shape=tiny_vtab.features("dtd"), make=dtd_example)
    with pytest.raises(ValueError, match="no feature 'objects', which VTAB's clevr_count needs"):
        VTABSource("clevr_count", "test", str(tmp_path))


def dtd_example(dataset, place, rng):
    return tiny_vtab.example("dtd", place, rng)


def test_another_major_version_is_said(tmp_path, caplog):
    tiny_vtab.write("dtd", tmp_path)
    (tmp_path / "dtd" / "3.0.0").rename(tmp_path / "dtd" / "4.0.0")
    info = tmp_path / "dtd" / "4.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"3.0.0"', '"4.0.0"'))
    with caplog.at_level("WARNING"):
        VTABSource("dtd", "train800", str(tmp_path))
    assert "is version 4.0.0; VTAB's published figures are of 3.x" in caplog.text
