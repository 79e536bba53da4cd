"""Several sources as one, each with its share of the training stream."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from vit_tf.data.sampling_groups import check_weights
from vit_tf.data.sources import Source


class MixtureSource(Source):
    """All records of several sources, one source after the other.

    Training shows the sources in proportion to their weights, each one's examples all once before
    any comes again (`RecordOrder`; `Input.shuffle = "global"`). Without weights it shows every
    example once an epoch, as evaluation always does.

    The mixture is multi-label if one of the sources is; the others' examples have one label then.

    Args:
      sources: the sources.
      weights: of each source its share of the training stream, in any unit.
      labels: `"shared"`: all label the same classes; `"separate"`: the classes of each source
        follow those of the ones before; `"by_name"`: classes of the same name are one, in the
        order in which they first appear.

    Raises:
      ValueError: the sources' classes do not fit `labels`, or the weights the sources.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float] | None = None,
        labels: str = "shared",
    ):
        name = " + ".join(source.name for source in sources)
        if len(sources) < 2:
            raise ValueError(f"MixtureSource needs at least two sources, got {name or 'none'}")
        if weights is not None:
            check_weights("weights", np.asarray(weights, np.float64), len(sources), "sources")
        maps, class_names = _label_maps(sources, labels)
        super().__init__(
            name=name,
            segments=[segment for source in sources for segment in source.segments],
            features=sources[0].features,
            num_classes=1 + max(int(label_map.max()) for label_map in maps),
            class_names=class_names,
            multi_label=any(source.multi_label for source in sources),
        )
        self.parts = list(sources)
        self.weights = None if weights is None else list(weights)
        self.scattered = any(source.scattered for source in sources)
        self._maps = [tf.constant(label_map, tf.int64) for label_map in maps]
        sizes = [source.num_examples for source in sources]
        self._firsts = np.cumsum([0, *sizes[:-1]])

    def part_of(self, index: int) -> tuple[Source, int]:
        """The source that a record comes from, and its index there."""
        part = int(np.searchsorted(self._firsts, index, side="right")) - 1
        return self.parts[part].part_of(index - int(self._firsts[part]))

    def parse(
        self, serialized: tf.Tensor, index: tf.Tensor | int | None = None
    ) -> dict[str, tf.Tensor]:
        """As the record's own source parses it, the label brought into the common classes."""
        if index is None:
            raise ValueError(f"{self.name}: to parse a record its index is needed")
        index = tf.cast(index, tf.int64)
        firsts = tf.constant(self._firsts, tf.int64)
        part = tf.searchsorted(firsts, index[tf.newaxis], side="right")[0] - 1

        def parse_as(number: int) -> dict[str, tf.Tensor]:
            parsed = self.parts[number].parse(serialized, index - firsts[number])
            label, label_map = parsed["label"], self._maps[number]
            known = (label >= 0) & (label < tf.size(label_map, tf.int64))
            place = tf.clip_by_value(label, 0, tf.size(label_map, tf.int64) - 1)
            label = tf.where(known, tf.gather(label_map, place), -1)
            parsed["label"] = tf.reshape(label, [-1]) if self.multi_label else label
            return parsed

        branches = [lambda number=number: parse_as(number) for number in range(len(self.parts))]
        return tf.switch_case(part, branches)

    def labelling(self) -> dict[str, Any]:
        """See `Source.labelling`."""
        maps = [label_map.numpy().tolist() for label_map in self._maps]
        return {
            **super().labelling(),
            "parts": [part.labelling() for part in self.parts],
            "maps": maps,
            "sizes": [part.num_examples for part in self.parts],
        }


def _label_maps(
    sources: Sequence[Source], labels: str
) -> tuple[list[np.ndarray], list[str] | None]:
    """Of each source the common label of each of its labels, and the common class names."""
    counts = [source.num_classes for source in sources]
    names = [source.class_names for source in sources]
    if labels == "shared":
        known = [of_source for of_source in names if of_source is not None]
        if len(set(counts)) > 1 or any(other != known[0] for other in known):
            raise ValueError(
                "the sources label different classes: "
                + "; ".join(_classes(source) for source in sources)
                + ". Set MixtureSource.labels = 'separate' or 'by_name'"
            )
        return [np.arange(count) for count in counts], known[0] if known else None
    if labels == "separate":
        firsts = np.cumsum([0, *counts[:-1]])
        joined = None if None in names else [name for of_source in names for name in of_source]
        maps = [first + np.arange(count) for first, count in zip(firsts, counts, strict=True)]
        return maps, joined
    if labels != "by_name":
        raise ValueError(f"labels must be 'shared', 'separate' or 'by_name', got {labels!r}")
    if None in names:
        nameless = sources[names.index(None)].name
        raise ValueError(f"labels = 'by_name' needs class names; {nameless} has none")
    joined = list(dict.fromkeys(name for of_source in names for name in of_source))
    place = {name: number for number, name in enumerate(joined)}
    return [np.array([place[name] for name in of_source]) for of_source in names], joined


def _classes(source: Source) -> str:
    some = ", ".join((source.class_names or [])[:3])
    return f"{source.name} {source.num_classes} classes" + (f" ({some}, ...)" if some else "")
