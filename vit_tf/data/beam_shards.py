"""Writes shards with Apache Beam, for datasets that outgrow one machine."""

import base64
import contextlib
import errno
import io
import json
import logging
import os
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vit_tf.data.disk import clear_disk_errors, megabytes
from vit_tf.data.image_files import ImageRecord
from vit_tf.data.shard_plan import Shard
from vit_tf.data.shard_writer import PROGRESS_FOLDER, finished_result, write_shard

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

_SECONDS_BETWEEN_LOOKS = 2


def pipeline_options(flags: Sequence[str]) -> "PipelineOptions":
    """Returns Beam's `PipelineOptions`.

    Args:
      flags: What Beam's own command lines take; `--runner=DirectRunner` and `runner=DirectRunner`
        are the same. https://beam.apache.org/documentation/runners lists each runner's.

    Raises:
      ImportError: Beam is not installed.
      ValueError: Beam has no such runner, or refuses a value. Names that it does not know are left
        to the runner, which may know them; Beam warns of them.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise ImportError(
            f"Apache Beam cannot be imported ({error}); install it with pip install 'vit_tf[beam]'"
        ) from error
    options = PipelineOptions([flag if flag[:1] == "-" else f"--{flag}" for flag in flags])
    usage = io.StringIO()
    try:
        with contextlib.redirect_stderr(usage):
            options.get_all_options()
    except SystemExit:  # argparse's way, after pages about every option
        complaint = usage.getvalue().splitlines()[-1].partition("error: ")[2]
        raise ValueError(f"Beam does not accept {' '.join(flags)}: {complaint}") from None
    beam.Pipeline(options=options)  # an unknown runner is refused here, not after the planning
    return options


def write_with_beam(
    work: Path,
    shards: Sequence[Shard],
    count: Callable[[int], object],
    options: "PipelineOptions",
) -> None:
    """Writes shards with a pipeline in which each shard is one element.

    The elements are no more than the shards' names: a runner limits the size of a pipeline's
    description, which the list of millions of images would exceed. What belongs into a shard lies
    in a file beside it, and what became of it too, so the workers need nothing but `work`.

    Args:
      work: Where the shards are to lie, under the same path on every worker.
      shards: What goes into each.
      count: Is told how many images are done, a shard at a time.
      options: Beam's `PipelineOptions`.

    Raises:
      OSError: the pipeline failed; shards that were whole before stay.
    """
    import apache_beam as beam

    for shard in shards:
        _write_order(work, shard)
    pipeline = beam.Pipeline(options=options)
    names = pipeline | "Shards" >> beam.Create([shard.filename for shard in shards])
    _ = names | "Write" >> beam.Map(write_ordered_shard, work=os.fspath(work))
    with _shards_counted(work, shards, count):
        try:
            state = pipeline.run().wait_until_finish()
        except Exception as error:  # each runner has errors of its own
            raise _failed(work, error) from error
    if state != "DONE":
        raise _failed(work, state)


def write_ordered_shard(filename: str, work: str) -> None:
    """Writes one shard on a Beam worker, unless an earlier attempt has.

    Args:
      filename: The shard's name.
      work: The folder of shards.

    Raises:
      FileNotFoundError: this worker does not have the folder.
      OSError: the disk is full or cannot be written.
    """
    from apache_beam.metrics import Metrics

    folder = Path(work)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not on Beam worker {platform.node()}; mount the folder of datasets and "
            "that of the images under the same paths on every worker"
        )
    shard = _read_order(folder, filename)
    if finished_result(folder, shard) is not None:
        return
    with clear_disk_errors(folder / filename, shard.num_bytes):
        result = write_shard(folder, shard)
    for name, number in (
        ("shards", 1),
        ("images", result.num_examples),
        ("bad_images", len(result.bad_images)),
    ):
        Metrics.counter("make_tfrecords", name).inc(number)
    logging.getLogger(__name__).info(
        "wrote %s: %d images, %s", filename, result.num_examples, megabytes(result.file_bytes)
    )


def _failed(work: Path, reason: object) -> OSError:
    """Says that a pipeline failed and, by the last line of the runner's traceback, why."""
    lines = [line for line in str(reason).splitlines() if line.strip()] or [repr(reason)]
    return OSError(
        errno.EIO,
        f"{work}: the Beam pipeline failed ({lines[-1].strip()}); run the same command again: it "
        "keeps the shards that are whole",
    )


@contextlib.contextmanager
def _shards_counted(
    work: Path, shards: Sequence[Shard], count: Callable[[int], object]
) -> Iterator[None]:
    """Counts images as shards appear, whichever machine writes them."""
    finished = threading.Event()

    def look() -> None:
        missing = {shard.filename: len(shard.records) for shard in shards}
        last = False
        while not last:
            last = finished.wait(_SECONDS_BETWEEN_LOOKS)
            for filename in missing.keys() & set(os.listdir(work)):
                count(missing.pop(filename))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()


def _write_order(work: Path, shard: Shard) -> None:
    """Writes down what goes into a shard."""
    records = []
    for record in shard.records:
        held = isinstance(record.image, bytes)
        image = base64.b64encode(record.image).decode() if held else str(record.image.absolute())
        records.append([record.filename, record.label, held, image])
    order = {"split": shard.split, "num_bytes": shard.num_bytes, "records": records}
    with clear_disk_errors(work):
        _order_file(work, shard.filename).write_text(json.dumps(order), encoding="utf-8")


def _read_order(work: Path, filename: str) -> Shard:
    order = json.loads(_order_file(work, filename).read_text(encoding="utf-8"))
    records = tuple(
        ImageRecord(name, label, base64.b64decode(image) if held else Path(image))
        for name, label, held, image in order["records"]
    )
    return Shard(filename, order["split"], records, order["num_bytes"])


def _order_file(work: Path, filename: str) -> Path:
    return work / PROGRESS_FOLDER / f"{filename}.order.json"
