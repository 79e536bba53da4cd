"""Tiny datasets in both layouts, written with TensorFlow and TFDS alone."""

import os
from collections.abc import Sequence

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


def pixels(number: int, height: int = 8, width: int = 8) -> np.ndarray:
    """An image that nobody confuses with another number's."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(number: int, height: int = 8, width: int = 8) -> bytes:
    return tf.io.encode_png(pixels(number, height, width)).numpy()


def jpeg(number: int, height: int = 24, width: int = 32) -> bytes:
    return tf.io.encode_jpeg(pixels(number, height, width)).numpy()


def foreign_example(encoded: bytes, label: int, filename: str = "") -> bytes:
    """A record as the common ImageNet shards have it."""
    values = {"image/encoded": encoded, "image/filename": filename.encode()}
    features = {
        key: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for key, value in values.items()
    }
    features["image/class/label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
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


def write_tfds(folder: os.PathLike, splits: dict[str, Sequence[int]]) -> str:
    """A TFDS dataset of numbered images with the given shard sizes a split; returns its folder."""
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["ant", "bee", "cat", "dog", "elk"]),
            "image/filename": tfds.features.Text(),
        }
    )
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name="tiny", filetype_suffix="tfrecord"
    )
    infos = []
    for split, shard_sizes in splits.items():
        first = 0
        for shard, size in enumerate(shard_sizes):
            name = f"tiny-{split}.tfrecord-{shard:05d}-of-{len(shard_sizes):05d}"
            examples = [
                {"image": pixels(i), "label": i % 5, "image/filename": f"{i}.png"}
                for i in range(first, first + size)
            ]
            records = [features.serialize_example(example) for example in examples]
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
