"""A tiny dataset of numbered images for the tests of the shard writer."""

import hashlib
from pathlib import Path

import numpy as np
import tensorflow as tf

from vit_tf.data.image_files import ImageCollection, ImageRecord
from vit_tf.data.shards import write_dataset

NUM_IMAGES = 90
BAD_GIF = b"GIF89a" + bytes(30)


def png(index: int) -> bytes:
    return tf.io.encode_png(np.full((4, 3, 3), index, np.uint8)).numpy()


def make_collection(**changed: bytes) -> ImageCollection:
    """90 images of 3 classes; pixels hold the image's number. `i7=b"..."` replaces image 7."""
    records = [
        ImageRecord(f"{'abc'[i % 3]}/{i:03d}.png", i % 3, changed.get(f"i{i}", png(i)))
        for i in range(NUM_IMAGES)
    ]
    return ImageCollection(("a", "b", "c"), {"train": records[:60], "test": records[60:]})


def write(out_dir, collection=None, name="tiny", num_shards=5, **options):
    options = {"progress": False, "say": lambda text: None, **options}
    collection = collection or make_collection()
    return write_dataset(collection, out_dir, name, num_shards=num_shards, **options)


def tree_digest(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


class Stop(Exception):
    """Stands for whatever ends a run."""


def make_many() -> ImageCollection:
    records = [ImageRecord(f"{i:04d}.png", i % 2, png(i % 251)) for i in range(4000)]
    return ImageCollection(("even", "odd"), {"train": records})
