"""Features on disk: computed once for a model, a preprocessing and a split, read by all probes."""

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_tf.data.disk import megabytes, write_whole
from vit_tf.data.fingerprint import source_facts
from vit_tf.evaluation.cached_array import CachedArray, file_stem
from vit_tf.evaluation.extractor import Extractor, FeatureBatch
from vit_tf.evaluation.feature_set import FeatureSet

# Another number for features that would come out otherwise with the same facts.
_FORMAT = 1
# So much work is lost at most when a process is killed.
_SAVE_EVERY_SECONDS = 10.0
# Arrays beside the features; the blanks keep them apart from these.
_LABELS, _PRESENT = "labels of examples", "examples that could be read"
_ABOUT = (
    "Features of images, which vit_tf.evaluation.extract computed: float32 arrays [examples, "
    "width] (numpy.load(..., mmap_mode='r')), with the name and SHA-256 of each in the JSON file "
    "beside it. All of it may be deleted: what is asked for is computed again. Files .partial are "
    "of a pass that is under way, or was stopped and will be gone on with."
)


class FeatureCache:
    """The features of one frozen model on one split, in a folder of their own.

    The folder's name holds a hash of what the features depend on: the model's weights,
    architecture and precision, the preprocessing, and the data's files, sizes and checksums. A
    feature is there whole or not at all; further ones are added. A pass that was killed is gone on
    with. Of several processes that want the same features one computes them, the others wait.

    Args:
      cache_dir: a local folder, for any number of models and splits.
      extractor: of the features; the model's weights are those of now.
    """

    def __init__(self, cache_dir: str | os.PathLike, extractor: Extractor):
        self._extractor = extractor
        data, featurizer = extractor.data, extractor.featurizer
        with extractor.weights():
            of_model = featurizer.facts()
        facts = {
            "format": _FORMAT,
            "model": of_model,
            "preprocess": featurizer.preprocess(data),
            "split": source_facts(data.source),
        }
        text = json.dumps(facts, sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()
        self.folder = Path(cache_dir).expanduser() / f"{file_stem(data.source.name)}-{key[:16]}"
        self._about = {"what": _ABOUT, "model": featurizer.name, "made_from": json.loads(text)}
        self._rows = data.source.num_examples
        conditions = {
            "batch_size": data.batch_size,
            "replicas": extractor.strategy.num_replicas_in_sync,
        }
        self._arrays = {
            name: CachedArray(self.folder, name, conditions)
            for name in (*extractor.names, _LABELS, _PRESENT)
        }

    def features(self) -> FeatureSet:
        """The features, computed if they are not there or not as they were written.

        Returns:
          Arrays that are mapped from the files.

        Raises:
          OSError: if the disk is full or cannot be written; what is whole stays.
          ValueError: for records that cannot be read.
        """
        alone = self._extractor.worker.num_input_pipelines == 1
        if not alone or self._missing():
            with self._lock() if self._extractor.is_chief else contextlib.nullcontext():
                # Meanwhile another process may have computed them.
                self._compute(self._missing_for_chief())
            self._extractor.told_by_chief([0])  # all wait for the chief's files
        return self._read()

    def _missing(self) -> list[str]:
        """Arrays that are not there; damaged ones are said and removed."""
        missing = []
        for name, array in self._arrays.items():
            problem = array.problem() if array.is_published else None
            if problem:
                _say(f"{problem}; it is computed again")
                array.remove()
            if not array.is_published:
                missing.append(name)
        return missing

    def _missing_for_chief(self) -> list[str]:
        names = list(self._arrays)
        own = self._missing() if self._extractor.is_chief else []
        told = self._extractor.told_by_chief([int(name in own) for name in names])
        return [name for name, is_missing in zip(names, told, strict=True) if is_missing]

    def _compute(self, missing: Sequence[str]) -> None:
        """Computes arrays and publishes them, going on with the parts that are there."""
        if not missing:
            return
        chief = self._extractor.is_chief
        # Labels alone come with any feature.
        names = [name for name in self._extractor.names if name in missing]
        extractor = self._extractor.of(names or self._extractor.names[:1])
        arrays = {name: self._arrays[name] for name in missing}
        done = min(array.steps_done for array in arrays.values()) if chief else 0
        (done,) = extractor.told_by_chief([done])
        if chief:
            if done:
                _say(f"{self.folder}: {done} batches are there; going on with the rest")
            with _Writing(arrays, self._rows, done) as writing:
                for batch in extractor.batches(done):
                    writing.add(batch)
            self._publish(arrays)
        else:
            for _ in extractor.batches(done):
                pass

    def _publish(self, arrays: dict[str, CachedArray]) -> None:
        about = json.dumps(self._about, indent=1) + "\n"
        write_whole(self.folder / "about.json", about)
        size = sum(array.publish() for array in arrays.values())
        names = ", ".join(name for name in arrays if name not in (_LABELS, _PRESENT))
        _say(f"{names} of {self._rows:,} examples, {megabytes(size)}: {self.folder}")

    def _read(self) -> FeatureSet:
        try:
            arrays = {name: array.read() for name, array in self._arrays.items()}
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error.filename} is not there; all workers need the same cache_dir on storage "
                "that they share"
            ) from error
        labels, present = np.array(arrays.pop(_LABELS)), arrays.pop(_PRESENT)
        if not present.all():  # rows of records that were skipped
            arrays = {name: values[present] for name, values in arrays.items()}
            labels = labels[present]
        return self._extractor.feature_set(arrays, labels)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Lets one process at a time write here; the system frees it when a process ends."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = open(self.folder / ".lock", "w")  # noqa: SIM115
        except OSError as error:
            raise OSError(
                error.errno,
                f"{self.folder} cannot be written ({os.strerror(error.errno)}); choose another "
                "cache_dir",
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _say(f"waiting for another process that writes to {self.folder}")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


class _Writing:
    """Writes batches into partial arrays, and notes from time to time how far they are."""

    def __init__(self, arrays: dict[str, CachedArray], rows: int, done: int):
        self._arrays, self._rows, self._done = arrays, rows, done
        self._begun = False
        self._saved = time.monotonic()

    def __enter__(self) -> "_Writing":
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        try:
            if self._begun:
                self._save()
        except OSError:
            if kind is None:
                raise
        finally:
            for array in self._arrays.values():
                array.close()

    def add(self, batch: FeatureBatch) -> None:
        present = np.ones(len(batch.index), bool)
        values = {**batch.features, _LABELS: batch.labels, _PRESENT: present}
        if not self._begun:
            self._begin(values)
        for name, array in self._arrays.items():
            array.write(batch.index, values[name])
        self._done = batch.step + 1
        if time.monotonic() - self._saved > _SAVE_EVERY_SECONDS:
            self._save()

    def _begin(self, values: dict[str, np.ndarray]) -> None:
        begun = []
        try:
            for name, array in self._arrays.items():
                shape = (self._rows, *values[name].shape[1:])
                array.begin(shape, values[name].dtype, keep=self._done > 0)
                begun.append(array)
        except OSError:
            for array in begun:
                array.close()
                if not self._done:
                    array.abandon()
            raise
        self._begun = True

    def _save(self) -> None:
        for array in self._arrays.values():
            array.save(self._done)
        self._saved = time.monotonic()


def _say(text: str) -> None:
    print(f"feature cache: {text}", file=sys.stderr, flush=True)
