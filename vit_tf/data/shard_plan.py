"""Which image goes into which shard, decided before anything is written."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping

from vit_tf.data.image_files import ImageCollection, ImageRecord

# A record's cost beside image and file name: TFRecord framing (16 bytes) and tf.train.Example.
_RECORD_OVERHEAD = 100
# Part of the fingerprint: raise it when the same input would give other bytes than before.
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file to write: `<name>-<split>.tfrecord-<index>-of-<num_shards>`.

    Attributes:
      filename: TFDS's name of the file.
      split: The split it belongs to.
      records: Its images, in order.
      num_bytes: About how large it will be.
    """

    filename: str
    split: str
    records: tuple[ImageRecord, ...]
    num_bytes: int


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """All shards of a dataset.

    Attributes:
      shards: Every shard, split after split.
      fingerprint: SHA-256 of all that decides the shards' bytes: name, version, classes, shard
        counts and, of every image, split, file name, label and size (its digest where the bytes
        are at hand). A file changed without changing its size is not noticed.
    """

    shards: tuple[Shard, ...]
    fingerprint: str

    @property
    def num_images(self) -> int:
        """Images in all splits together."""
        return sum(len(shard.records) for shard in self.shards)

    @property
    def num_bytes(self) -> int:
        """About how large all shards will be."""
        return sum(shard.num_bytes for shard in self.shards)


def plan_shards(
    collection: ImageCollection,
    name: str,
    version: str = "1.0.0",
    num_shards: int | Mapping[str, int] | None = None,
    shard_bytes: int = 128 * 2**20,
) -> ShardPlan:
    """Spreads a collection over shards in a fixed pseudo-random order.

    Images are ordered by the SHA-256 of their file name, so classes are mixed, and the order is
    the same on every machine and whatever else changes about the images.

    Args:
      collection: The images.
      name: The dataset's name: small letters, digits and `_`, a letter first.
      version: Three numbers, `1.0.0`.
      num_shards: Shards of every split, or of each split by name. A split has never more shards
        than images.
      shard_bytes: The largest size aimed at where `num_shards` does not say.

    Raises:
      ValueError: a bad name, version, split name or shard count; a split without images; a file
        name twice in a split; a label without a class name.
    """
    _check_names(collection, name, version, num_shards)
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes must be at least 1, got {shard_bytes}")
    digest = hashlib.sha256()
    shards: list[Shard] = []
    for split, records in sorted(collection.splits.items()):
        sizes = _record_sizes(split, records, len(collection.class_names))
        wanted = num_shards.get(split) if isinstance(num_shards, Mapping) else num_shards
        count = wanted or -(-sum(sizes.values()) // shard_bytes)
        count = min(count, len(records))
        digest.update(
            json.dumps(
                [_FORMAT, name, version, collection.class_names, split, count, len(records)]
            ).encode()
        )
        ordered = sorted(records, key=lambda record: _hash(record.filename.encode()))
        for record in ordered:
            content = _hash(record.image) if isinstance(record.image, bytes) else ""
            line = [record.filename, record.label, sizes[record.filename], content]
            digest.update(json.dumps(line).encode())
        for index in range(count):
            part = ordered[index * len(ordered) // count : (index + 1) * len(ordered) // count]
            shards.append(
                Shard(
                    filename=f"{name}-{split}.tfrecord-{index:05d}-of-{count:05d}",
                    split=split,
                    records=tuple(part),
                    num_bytes=sum(sizes[record.filename] for record in part),
                )
            )
    return ShardPlan(tuple(shards), digest.hexdigest())


def _check_names(
    collection: ImageCollection,
    name: str,
    version: str,
    num_shards: int | Mapping[str, int] | None,
) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueError(
            f"dataset name {name!r}: use small letters, digits and '_', a letter first"
        )
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ValueError(f"version {version!r}: expected three numbers, as in 1.0.0")
    if not any(collection.splits.values()):
        raise ValueError("there are no images to write")
    for split in collection.splits:
        if not re.fullmatch(r"\w+", split):
            raise ValueError(f"split name {split!r}: use letters, digits and '_'")
    counts = num_shards if isinstance(num_shards, Mapping) else {"": num_shards}
    for split, count in counts.items():
        if split and split not in collection.splits:
            raise ValueError(
                f"num_shards names split {split!r}; the splits are {sorted(collection.splits)}"
            )
        if count is not None and count < 1:
            raise ValueError(f"num_shards must be at least 1, got {count}")


def _record_sizes(split: str, records: list[ImageRecord], num_classes: int) -> dict[str, int]:
    """Returns the approximate bytes of every record by its file name."""
    if not records:
        raise ValueError(f"split {split!r} has no images")
    sizes: dict[str, int] = {}
    for record in records:
        if record.filename in sizes:
            raise ValueError(f"{record.filename} occurs twice in split {split!r}; list it once")
        if not 0 <= record.label < num_classes:
            raise ValueError(
                f"{record.filename}: label {record.label} is outside 0..{num_classes - 1} "
                f"({num_classes} class names)"
            )
        is_bytes = isinstance(record.image, bytes)
        size = len(record.image) if is_bytes else record.image.stat().st_size
        sizes[record.filename] = size + len(record.filename) + _RECORD_OVERHEAD
    return sizes


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
