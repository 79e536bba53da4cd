"""Some of a source's records, such as a few of each class."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vit_tf import planning
from vit_tf.data import tfrecord
from vit_tf.data.record_stream import RecordStream
from vit_tf.data.sampling_groups import read_labels, require_one_label
from vit_tf.data.sources import Source


class Subset(Source):
    """Some records of another source, in its order.

    Args:
      source: the other source.
      indices: the records' global indices there, ascending.
      name: what logs and messages call the subset.

    Raises:
      IndexError: the source has no such record.
    """

    scattered = True

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray, name: str):
        indices = np.asarray(indices, np.int64)
        if (np.diff(indices) <= 0).any():
            raise ValueError(f"{name}: indices must ascend, each once")
        if indices.size and not (indices[0] >= 0 and indices[-1] < source.num_examples):
            raise IndexError(f"{source.name} has {source.num_examples} records, {name} needs more")
        super().__init__(
            name=name,
            segments=_pick(source, indices),
            features=source.features,
            num_classes=source.num_classes,
            class_names=source.class_names,
            multi_label=source.multi_label,
        )
        self._source = source
        self._indices = tf.constant(indices)

    def part_of(self, index: int) -> tuple[Source, int]:
        """The source that a record comes from, and its index there."""
        return self._source.part_of(int(self._indices[index]))

    def parse(
        self, serialized: tf.Tensor, index: tf.Tensor | int | None = None
    ) -> dict[str, tf.Tensor]:
        """As the other source parses it."""
        if index is not None:
            index = tf.gather(self._indices, index)
        return self._source.parse(serialized, index)

    def labelling(self) -> dict[str, Any]:
        """See `Source.labelling`."""
        indices = hashlib.sha256(self._indices.numpy().tobytes()).hexdigest()
        return {**self._source.labelling(), "indices": indices}


class FewShotSource(Subset):
    """The same number of examples of each class, drawn at random (big_vision's few-shot probes).

    Each class's records are permuted, class after class, by one `np.random.default_rng(seed)`, and
    the first ones taken: so those of a smaller number are among those of a larger one
    (big_vision/evaluators/fewshot_lsr.py). All records are read once for their labels, and the
    chosen ones then by their places; `Input.cache` keeps them in memory.

    Args:
      source: where to draw from.
      per_class: examples of each class.
      seed: of the draw.

    Raises:
      ValueError: a class has fewer examples, a record no label, or the source several labels an
        example.
    """

    def __init__(self, source: Source, per_class: int, seed: int = 0):
        if per_class < 1:
            raise ValueError(f"per_class must be at least 1, got {per_class}")
        require_one_label(source, "FewShotSource.per_class")
        name = f"{source.name}, {per_class} per class (seed {seed})"
        if planning.is_planned():  # the records stay unread: the right number of some others
            planned = [tfrecord.Segment("", 0, per_class * source.num_classes)]
            Source.__init__(
                self, name, planned, source.features, source.num_classes, source.class_names
            )
            return
        labels = _labels(source)
        counts = np.bincount(labels, minlength=source.num_classes)
        names = source.class_names or range(source.num_classes)
        few = [f"{name} ({n})" for name, n in zip(names, counts, strict=True) if n < per_class]
        if few:
            more = f" and {len(few) - 6} more" if len(few) > 6 else ""
            raise ValueError(
                f"{source.name} has fewer than {per_class} examples of class "
                f"{', '.join(few[:6])}{more}"
            )
        super().__init__(
            source,
            np.sort(draw_per_class(labels, per_class, seed)),
            name,
        )


def draw_per_class(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Indices of the first `per_class` of each class's permuted examples, class after class."""
    rng = np.random.default_rng(seed)
    of_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.concatenate([rng.permutation(indices)[:per_class] for indices in of_class])


def _labels(source: Source) -> np.ndarray:
    """Every record's label; all must have one."""
    stream = RecordStream(
        source.segments, source.first_indices, window=1, by_offset=source.scattered
    )
    try:
        indices, labels = read_labels(source, stream)
    except tf.errors.OpError as error:
        index, corrupt = next(stream.damage(), (0, error.message))
        raise ValueError(f"{source.locate(index)}: {corrupt}") from error
    for index in indices[labels < 0]:
        raise ValueError(f"{source.locate(int(index))}: no label in 0..{source.num_classes - 1}")
    return labels


def _pick(source: Source, indices: np.ndarray) -> list[tfrecord.Segment]:
    """Segments of the chosen records: one for each run of neighbours."""
    picked = []
    for segment, first in zip(source.segments, source.first_indices, strict=True):
        inside = indices[(indices >= first) & (indices < first + segment.num_records)] - first
        if inside.size:
            runs = np.split(inside, np.flatnonzero(np.diff(inside) > 1) + 1)
            bounds = tfrecord.record_bounds(segment)
            picked += [tfrecord.part(segment, int(run[0]), len(run), bounds) for run in runs]
    return picked
