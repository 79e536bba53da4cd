"""Stand-ins for VTAB's data sets: TFDS data sets with the same features and splits, but tiny."""

import functools
import io
from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from vit_tf.data.vtab_tasks import TASKS

SPLITS = {  # as TFDS has them; sizes from which every split of VTAB can be taken
    "train": 1360,
    "validation": 230,
    "test": 61,
}
ONLY_TRAIN = ("eurosat/rgb", "resisc45", "dsprites")
NO_VALIDATION = ("caltech101", "cifar100", "oxford_iiit_pet", "svhn_cropped", "smallnorb")
NO_TEST = ("clevr",)


@functools.cache
def png(*pixel: int) -> bytes:
    """A 2x2 image of one colour."""
    return tf.io.encode_png(np.broadcast_to(np.uint8(pixel), (2, 2, len(pixel)))).numpy()


def split_sizes(dataset: str) -> dict[str, int]:
    """Sizes of the splits that a data set has in TFDS."""
    if dataset in ONLY_TRAIN:
        return {"train": 2400}
    sizes = {**SPLITS, "train": 2300 if dataset in NO_VALIDATION + NO_TEST else 1360}
    if dataset == "smallnorb":
        sizes["test"] = 420
    gone = ("validation",) if dataset in NO_VALIDATION else ("test",) if dataset in NO_TEST else ()
    return {name: size for name, size in sizes.items() if name not in gone}


def label(number: int) -> tfds.features.ClassLabel:
    return tfds.features.ClassLabel(num_classes=number)


def vector(*shape: int) -> tfds.features.Tensor:
    return tfds.features.Tensor(shape=shape, dtype=np.float32)


def features(dataset: str) -> dict:
    """The features that TFDS's own builders declare, as far as they matter."""
    rgb = tfds.features.Image(shape=(None, None, 3))
    grey = tfds.features.Image(shape=(None, None, 1))
    if dataset == "clevr":
        objects = {
            "color": label(8),
            "size": label(2),
            "shape": label(3),
            "3d_coords": vector(3),
            "pixel_coords": vector(3),
        }
        name = tfds.features.Text()
        return {"image": rgb, "file_name": name, "objects": tfds.features.Sequence(objects)}
    if dataset == "kitti":
        objects = {"type": label(8), "bbox": tfds.features.BBoxFeature(), "location": vector(3)}
        return {"image": rgb, "objects": tfds.features.Sequence(objects)}
    if dataset == "dsprites":
        return {
            "image": grey,
            "label_shape": label(3),
            "label_orientation": label(40),
            "label_x_position": label(32),
            "value_x_position": vector(),
        }
    if dataset == "smallnorb":
        return {
            "image": grey,
            "image2": grey,
            "label_category": label(5),
            "label_elevation": label(9),
            "label_azimuth": label(18),
        }
    (classes,) = {task.num_classes for task in TASKS.values() if task.dataset == dataset}
    return {"image": rgb, "label": label(classes)}


def example(dataset: str, place: int, rng: np.random.Generator) -> dict:
    """An example whose image has its place in the split as the colour's low bytes."""
    image = io.BytesIO(png(place % 251, place // 251, 7))
    if dataset == "clevr":
        count = int(rng.integers(3, 11))
        objects = [
            {
                "color": int(rng.integers(8)),
                "size": int(rng.integers(2)),
                "shape": int(rng.integers(3)),
                "3d_coords": rng.normal(size=3).astype(np.float32),
                "pixel_coords": np.float32([*rng.uniform(0, 320, 2), rng.uniform(7.2, 14)]),
            }
            for _ in range(count)
        ]
        return {"image": image, "file_name": f"{place}.png", "objects": objects}
    if dataset == "kitti":
        objects = [
            {
                "type": int(rng.integers(8)),
                "bbox": tfds.features.BBox(0.1, 0.1, 0.5, 0.5),
                "location": np.float32([*rng.normal(size=2), rng.uniform(1, 60)]),
            }
            for _ in range(rng.integers(0, 5))
        ]
        return {"image": image, "objects": objects}
    labels = {
        name: int(rng.integers(feature.num_classes))
        for name, feature in features(dataset).items()
        if isinstance(feature, tfds.features.ClassLabel)
    }
    if dataset == "dsprites":
        grey = io.BytesIO(png(place % 2))
        return {"image": grey, "value_x_position": np.float32(0.5), **labels}
    if dataset == "smallnorb":
        return {"image": io.BytesIO(png(place % 251)), "image2": io.BytesIO(png(0)), **labels}
    return {"image": image, **labels}


def write(dataset: str, data_dir: Path, make=example, sizes=None, shape=None) -> dict[str, list]:
    """Writes a data set where TFDS would; returns its examples by split."""
    name, _, config = dataset.partition("/")
    version = next(t.major_version for t in TASKS.values() if t.dataset == dataset)
    folder = data_dir / name / config / f"{version}.0.0"
    folder.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(
        name=name,
        version=tfds.core.Version(f"{version}.0.0"),
        data_dir=str(folder),
        module_name="",
        config_name=config or None,
    )
    info = tfds.core.DatasetInfo(
        builder=identity, features=tfds.features.FeaturesDict(shape or features(dataset))
    )
    rng = np.random.default_rng(len(dataset))
    written = {
        split: [make(dataset, place, rng) for place in range(size)]
        for split, size in (sizes or split_sizes(dataset)).items()
    }
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=700)
    writer.initialize_splits(list(written))
    for split, examples in written.items():
        writer.add_examples({split: examples})
    writer.close_all()
    return written
