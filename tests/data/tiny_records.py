"""Tiny datasets in both layouts, written with TensorFlow and TFDS alone."""

import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

FOREIGN_FEATURES = {
    "image": "image/encoded",
    "label": "image/class/label",
    "filename": "image/filename",
}
GIF = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,"
    b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x01D\x00;"
)


def assert_same(left: list[dict], right: list[dict]) -> None:
    """Two lists of batches are alike to the bit."""
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key].dtype == other[key].dtype
            assert one[key].tobytes() == other[key].tobytes(), key


def pixels(number: int, height: int = 8, width: int = 8) -> np.ndarray:
    """An image that nobody confuses with another number's."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(number: int, height: int = 8, width: int = 8) -> bytes:
    return tf.io.encode_png(pixels(number, height, width)).numpy()


def jpeg(number: int, height: int = 24, width: int = 32) -> bytes:
    return tf.io.encode_jpeg(pixels(number, height, width)).numpy()


def foreign_example(encoded: bytes, label: int | Sequence[int], filename: str = "") -> bytes:
    """A record as the common ImageNet shards have it; with any number of labels if it is a list."""
    values = {"image/encoded": encoded, "image/filename": filename.encode()}
    features = {
        key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for key, value in values.items()
    }
    labels = tf.train.Int64List(value=np.atleast_1d(label).astype(int))
    features["image/class/label"] = tf.train.Feature(int64_list=labels)
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_records(path: str | os.PathLike, records: Sequence[bytes]) -> str:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)
    return str(path)


def write_foreign(folder: os.PathLike, shard_sizes: Sequence[int], num_classes: int = 5) -> str:
    """Numbered images in files of the given sizes; returns the pattern."""
    first = 0
    for shard, size in enumerate(shard_sizes):
        numbers = range(first, first + size)
        records = [foreign_example(png(i), i % num_classes, f"{i}.png") for i in numbers]
        write_records(f"{folder}/train-{shard:05d}-of-{len(shard_sizes):05d}", records)
        first += size
    return f"{folder}/train-*"


CLASSES = ["ant", "bee", "cat", "dog", "elk"]


def write_tfds(folder: os.PathLike, splits: dict[str, Sequence[int]]) -> str:
    """A TFDS dataset of numbered images with the given shard sizes a split; returns its folder."""
    features = {
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
        "label": tfds.features.ClassLabel(names=CLASSES),
        "image/filename": tfds.features.Text(),
    }

    def example(i: int) -> dict:
        return {"image": pixels(i), "label": i % 5, "image/filename": f"{i}.png"}

    return _write_tfds(folder, splits, features, example)


def real_labels(number: int) -> list[int]:
    """Labels of an image of `write_real`: a class and its neighbour, one class, or none."""
    return [[number % 5, (number + 1) % 5], [number % 5], []][number % 3]


def write_real(folder: os.PathLike, splits: dict[str, Sequence[int]]) -> str:
    """Like `write_tfds`, with the features of TFDS's `imagenet2012_real`."""
    features = {
        "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
        "original_label": tfds.features.ClassLabel(names=CLASSES),
        "real_label": tfds.features.Sequence(tfds.features.ClassLabel(names=CLASSES)),
        "file_name": tfds.features.Text(),
    }

    def example(i: int) -> dict:
        return {
            "image": pixels(i),
            "original_label": i % 5,
            "real_label": real_labels(i),
            "file_name": f"ILSVRC2012_val_{i + 1:08d}.JPEG",
        }

    return _write_tfds(folder, splits, features, example)


def _write_tfds(
    folder: os.PathLike,
    splits: dict[str, Sequence[int]],
    features: dict[str, tfds.features.FeatureConnector],
    example: Callable[[int], dict],
) -> str:
    features = tfds.features.FeaturesDict(features)
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name="tiny", filetype_suffix="tfrecord"
    )
    infos = []
    for split, shard_sizes in splits.items():
        first = 0
        for shard, size in enumerate(shard_sizes):
            name = f"tiny-{split}.tfrecord-{shard:05d}-of-{len(shard_sizes):05d}"
            numbers = range(first, first + size)
            records = [features.serialize_example(example(number)) for number in numbers]
            write_records(f"{folder}/{name}", records)
            first += size
        info = tfds.core.SplitInfo(
            name=split,
            shard_lengths=list(shard_sizes),
            num_bytes=0,
            filename_template=template.replace(split=split),
        )
        infos.append(info)
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder), features=features, split_infos=infos, check_data=False
    )
    return str(folder)
