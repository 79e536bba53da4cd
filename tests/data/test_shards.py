import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from tiny_shards import NUM_IMAGES, make_collection, png, tree_digest, write

from vit_tf.data.digits import digits_collection
from vit_tf.data.image_files import ImageCollection, ImageRecord, list_image_folder
from vit_tf.data.shard_plan import plan_shards
from vit_tf.data.shard_writer import encode_example


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A whole dataset of 90 images, written once."""
    return write(tmp_path_factory.mktemp("tiny"), num_workers=1).directory


def test_tfds_reads_every_image_once_with_its_label(tiny):
    builder = tfds.builder_from_directory(tiny)
    assert builder.info.features["label"].names == ["a", "b", "c"]
    assert {name: info.num_examples for name, info in builder.info.splits.items()} == {
        "train": 60,
        "test": 30,
    }
    assert builder.info.splits["train"].shard_lengths == [12] * 5
    seen = {}
    for example in tfds.as_numpy(builder.as_dataset(split="train+test")):
        number = int(example["image"][0, 0, 0])
        assert (example["image"] == number).all()
        seen[number] = (int(example["label"]), example["image/filename"].decode())
    assert seen == {i: (i % 3, f"{'abc'[i % 3]}/{i:03d}.png") for i in range(NUM_IMAGES)}


def test_tfds_load_finds_the_dataset_by_name(tiny):
    data = tfds.load("tiny", data_dir=tiny.parents[1], split="test", as_supervised=True)
    assert len(list(data)) == 30


def test_the_files_own_bytes_are_stored(tiny):
    (path,) = tiny.glob("*test.tfrecord-00000-of-00005")
    stored = [tf.train.Example.FromString(raw.numpy()) for raw in tf.data.TFRecordDataset(path)]
    for example in stored:
        feature = example.features.feature
        number = int(feature["image/filename"].bytes_list.value[0][2:5])
        assert feature["image"].bytes_list.value[0] == png(number)


def test_examples_are_what_tfds_serialises():
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
            "image/filename": tfds.features.Text(),
        }
    )
    image = png(9)
    ours = encode_example(ImageRecord("ü/1.png", 1, image), image)
    tfds_bytes = features.serialize_example(
        {"image": image, "label": "b", "image/filename": "ü/1.png"}
    )
    assert tf.train.Example.FromString(ours) == tf.train.Example.FromString(tfds_bytes)


def test_classes_are_mixed_in_every_shard(tiny):
    for path in tiny.glob("*train.tfrecord*"):
        examples = map(
            tf.train.Example.FromString, tf.data.TFRecordDataset(path).as_numpy_iterator()
        )
        labels = {e.features.feature["label"].int64_list.value[0] for e in examples}
        assert labels == {0, 1, 2}


def test_same_input_gives_the_same_bytes_whatever_the_workers(tiny, tmp_path):
    again = write(tmp_path, num_workers=7).directory
    assert tree_digest(again) == tree_digest(tiny)


def test_order_of_listing_does_not_matter(tiny, tmp_path):
    collection = make_collection()
    for records in collection.splits.values():
        records.reverse()
    assert tree_digest(write(tmp_path, collection).directory) == tree_digest(tiny)


def test_checksums_are_in_sha256sums_format(tiny):
    subprocess.run(["sha256sum", "-c", "checksums.sha256"], cwd=tiny, check=True)
    assert len((tiny / "checksums.sha256").read_text().splitlines()) == 10


def test_nothing_but_the_dataset_is_left(tiny):
    assert [path.name for path in tiny.parent.iterdir()] == ["1.0.0"]
    assert {path.name for path in tiny.iterdir() if "tfrecord" not in path.name} == {
        "checksums.sha256",
        "dataset_info.json",
        "features.json",
        "label.labels.txt",
        "shard_plan.json",
    }


def test_shards_are_sized_by_bytes_and_never_outnumber_images():
    collection = make_collection()
    by_size = plan_shards(collection, "tiny", shard_bytes=2000)
    assert all(shard.num_bytes <= 2200 for shard in by_size.shards)
    assert len(plan_shards(collection, "tiny").shards) == 2
    per_split = plan_shards(collection, "tiny", num_shards={"train": 4, "test": 1000})
    counts = [sum(s.split == split for s in per_split.shards) for split in ("train", "test")]
    assert counts == [4, 30]


def test_digits_are_scikit_learns_in_a_stratified_split():
    from sklearn.datasets import load_digits

    collection = digits_collection()
    sizes = {split: len(records) for split, records in collection.splits.items()}
    assert sizes == {"train": 1437, "test": 360}
    images, labels = load_digits(return_X_y=True)
    for record in collection.splits["test"]:
        index = int(re.fullmatch(r"digit-(\d{4})\.png", record.filename)[1])
        pixels = tf.io.decode_png(record.image).numpy()
        assert pixels.shape == (8, 8, 1)
        np.testing.assert_allclose(pixels.ravel() * (16 / 255), images[index], atol=0.04)
        assert record.label == labels[index]
    counts = np.bincount([record.label for record in collection.splits["test"]])
    assert counts.min() >= 34 and counts.max() <= 38


def test_photographs_round_trip(shared, tmp_path):
    import tarfile

    with tarfile.open(shared / "data" / "flowers5" / "flowers5.tar") as tar:
        members = [m for m in tar.getmembers() if m.name.endswith(".jpg")]
        tar.extractall(tmp_path, members=members[::12], filter="data")
    collection = list_image_folder(tmp_path / "flowers5")
    directory = write(tmp_path / "out", collection, "flowers5", num_shards=2).directory
    sources = {r.filename: r for records in collection.splits.values() for r in records}
    builder = tfds.builder_from_directory(directory)
    decoders = {"image": tfds.decode.SkipDecoding()}
    examples = list(tfds.as_numpy(builder.as_dataset(split="train+test", decoders=decoders)))
    assert len(examples) == len(sources) == len(members[::12])
    for example in examples:
        record = sources[example["image/filename"].decode()]
        assert (example["image"], example["label"]) == (record.read(), record.label)


@pytest.mark.slow
def test_fashion_mnist_goes_through_whole(shared, tmp_path):
    import gzip

    def read(name: str, offset: int) -> np.ndarray:
        raw = gzip.decompress((shared / "data" / "fashion_mnist" / name).read_bytes())
        return np.frombuffer(raw, np.uint8, offset=offset)

    splits = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images = read(f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
        labels = read(f"{prefix}-labels-idx1-ubyte.gz", 8)
        splits[split] = [
            ImageRecord(f"{i:05d}.png", int(label), tf.io.encode_png(image).numpy())
            for i, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
    collection = ImageCollection(tuple("0123456789"), splits)
    directory = write(tmp_path, collection, "fashion_mnist", num_shards=4).directory
    data = tfds.builder_from_directory(directory).as_dataset(split="test")
    pixels = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    seen = set()
    for example in tfds.as_numpy(data):
        index = int(example["image/filename"][:5])
        np.testing.assert_array_equal(example["image"][..., 0], pixels[index])
        seen.add(index)
    assert len(seen) == 10_000
