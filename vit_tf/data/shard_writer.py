"""Writes shards: reads, checks and encodes their images and remembers what became of each."""

import collections
import dataclasses
import functools
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf

from vit_tf.data.disk import clear_disk_errors, file_sha256, read_json, sync, write_whole
from vit_tf.data.image_files import ImageRecord, image_problem
from vit_tf.data.shard_plan import Shard

PROGRESS_FOLDER = "progress"
ATTEMPT_SUFFIX = ".attempt"  # of a folder in the progress folder where a shard is being written
_CHUNK = 8  # images a worker takes at a time; twice that for each worker waits in memory


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """What became of one shard.

    Attributes:
      num_examples: Images written.
      num_bytes: Sum of the serialised examples' sizes, as TFDS counts it.
      file_bytes: Size of the file.
      sha256: The file's digest, in hex.
      bad_images: (file name, why) of every image left out.
    """

    num_examples: int
    num_bytes: int
    file_bytes: int
    sha256: str
    bad_images: list[tuple[str, str]]


def write_with_threads(
    work: Path, shards: Sequence[Shard], count: Callable[[int], object], num_workers: int
) -> None:
    """Writes shards one after another; threads read, check and encode their images.

    Args:
      work: Where the shards are to lie.
      shards: What goes into each.
      count: Is told how many images are done, as they are.
      num_workers: How many threads.
    """
    needed = sum(shard.num_bytes for shard in shards)
    with ThreadPoolExecutor(num_workers) as pool:
        map_chunks = functools.partial(_ordered_map, pool, 2 * num_workers)
        for shard in shards:
            with clear_disk_errors(work / shard.filename, needed):
                write_shard(work, shard, map_chunks, count)
            needed -= shard.num_bytes


def write_shard(
    work: Path,
    shard: Shard,
    map_chunks: Callable[[Callable, Iterable], Iterable] = map,
    count: Callable[[int], object] = lambda images: None,
) -> ShardResult:
    """Writes one shard in a folder of this attempt's own and moves it out when it is whole.

    A second attempt at the same time, as some Beam runners make, does no harm: both give the same
    bytes. Images that cannot be read are left out and named in the result, which is also written
    down in `work/progress`.

    Args:
      work: Where the shard is to lie.
      shard: What goes into it.
      map_chunks: `map`, or one that works ahead but keeps the order.
      count: Is told how many images are done, as they are.
    """
    num_examples = num_bytes = 0
    bad_images: list[tuple[str, str]] = []
    chunks = [shard.records[i : i + _CHUNK] for i in range(0, len(shard.records), _CHUNK)]
    with tempfile.TemporaryDirectory(
        prefix=f"{shard.filename}.", suffix=ATTEMPT_SUFFIX, dir=work / PROGRESS_FOLDER
    ) as attempt:
        temporary = Path(attempt, "shard")
        with tf.io.TFRecordWriter(os.fspath(temporary)) as writer:
            for encoded in map_chunks(_check_and_encode, chunks):
                for filename, example, problem in encoded:
                    if problem is not None:
                        bad_images.append((filename, problem))
                        continue
                    writer.write(example)
                    num_examples += 1
                    num_bytes += len(example)
                count(len(encoded))
        result = ShardResult(
            num_examples, num_bytes, temporary.stat().st_size, file_sha256(temporary), bad_images
        )
        sync(temporary)
        note = Path(attempt, "result")
        write_whole(note, json.dumps(dataclasses.asdict(result)))
        note.rename(_result_file(work, shard))
        temporary.rename(work / shard.filename)
    return result


def _check_and_encode(
    records: Iterable[ImageRecord],
) -> list[tuple[str, bytes | None, str | None]]:
    """Returns (file name, example, None) of readable images, (file name, None, why) of others."""
    encoded = []
    for record in records:
        try:
            image = record.read()
        except OSError as error:
            encoded.append((record.filename, None, f"cannot be read ({error.strerror})"))
            continue
        problem = image_problem(image)
        example = encode_example(record, image) if problem is None else None
        encoded.append((record.filename, example, problem))
    return encoded


def _ordered_map(
    pool: ThreadPoolExecutor, window: int, function: Callable, items: Iterable
) -> Iterator:
    """Like `pool.map`, but holds no more than `window` results that nobody has taken yet."""
    pending: collections.deque[Future] = collections.deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= window:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def finished_result(work: Path, shard: Shard) -> ShardResult | None:
    """Returns what an earlier run wrote down about a shard that it finished, or None.

    Args:
      work: Where the shard lies.
      shard: Which one.
    """
    stored = read_json(_result_file(work, shard))
    path = work / shard.filename
    if stored is None or not path.exists() or path.stat().st_size != stored["file_bytes"]:
        return None
    bad_images = [(filename, problem) for filename, problem in stored.pop("bad_images")]
    return ShardResult(**stored, bad_images=bad_images)


def encode_example(record: ImageRecord, image: bytes) -> bytes:
    """Serialises one example with the features `image`, `label` and `image/filename`.

    This is what TFDS' own serialiser gives, but with the map's keys in a fixed order, which TFDS
    leaves to chance: the same input must give the same bytes.

    Args:
      record: The image's label and name.
      image: Its encoded bytes.
    """
    feature = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[record.label])),
        "image/filename": tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[record.filename.encode()])
        ),
    }
    example = tf.train.Example(features=tf.train.Features(feature=feature))
    return example.SerializeToString(deterministic=True)


def _result_file(work: Path, shard: Shard) -> Path:
    return work / PROGRESS_FOLDER / f"{shard.filename}.json"
