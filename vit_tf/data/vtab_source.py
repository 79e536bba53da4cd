"""The examples of a VTAB task, out of the TFDS data set that it is made of."""

import os

import tensorflow as tf
from absl import logging

from vit_tf import planning
from vit_tf.data import tfrecord
from vit_tf.data.sources import Source
from vit_tf.data.tfds_source import dataset_folder, dataset_info, split_segments
from vit_tf.data.vtab_tasks import TASKS
from vit_tf.suggestions import did_you_mean


class VTABSource(Source):
    """A split of one of VTAB's 19 tasks, of a data set that is on disk. Nothing is downloaded.

    The data sets are prepared by `tfds build` (each task's `build` says how) in any version; where
    the major version is another than the reference's, other examples may be meant, which is said.

    Args:
      task: name of the task, see `vtab_tasks.TASKS`.
      split: `"train800"` and `"val200"` to choose hyperparameters by, `"train800val200"` and
        `"test"` to measure with them.
      data_dir: TFDS data directory, with a folder for each data set.

    Raises:
      FileNotFoundError: the data set is not there; the message says how to get it.
      ValueError: an unknown task or split, or a data set that is not as VTAB needs it.
    """

    def __init__(self, task: str, split: str, data_dir: str = "~/tensorflow_datasets"):
        if task not in TASKS:
            hint = did_you_mean(task, TASKS, count=1)
            raise ValueError(f"VTAB has no task {task!r}.{hint} It has {', '.join(TASKS)}")
        self.task = TASKS[task]
        data_dir = os.path.expanduser(str(data_dir))
        try:
            folder = dataset_folder(data_dir, self.task.dataset, None)
        except FileNotFoundError as error:
            missing = f"{error} VTAB's {task} comes from: {self.task.build}"
            if not planning.is_planned():
                raise FileNotFoundError(missing) from error
            planning.note("data", os.path.join(data_dir, self.task.dataset), missing)
            self._init(task, split, [tfrecord.Segment("", 0, self.task.num_examples(split))])
            return
        planning.note("data", folder)
        info = dataset_info(folder)
        needed = {name.split("/")[0] for name in self.task.labels.spec} | {"image"}
        if missing := needed - set(info.features):
            raise ValueError(
                f"{folder} has no feature {min(missing)!r}, which VTAB's {task} needs; it has "
                f"{', '.join(sorted(info.features))}"
            )
        if info.version.major != self.task.major_version:
            logging.warning(
                "%s is version %s; VTAB's published figures are of %d.x, whose train800 may be "
                "other examples.",
                folder,
                info.version,
                self.task.major_version,
            )
        sizes = {name: part.num_examples for name, part in info.splits.items()}
        self._init(task, split, split_segments(info, folder, self.task.split(split, sizes)))

    def _init(self, task: str, split: str, segments: list[tfrecord.Segment]) -> None:
        super().__init__(
            name=f"VTAB {task} {split}",
            segments=segments,
            features={"image": "image"},
            num_classes=self.task.num_classes,
        )

    def parse(
        self, serialized: tf.Tensor, index: tf.Tensor | int | None = None
    ) -> dict[str, tf.Tensor]:
        """See `Source.parse`; the label is what the task makes of the record's features."""
        del index
        labels = self.task.labels
        spec = {"image": tf.io.FixedLenFeature([], tf.string), **labels.spec}
        features = tf.io.parse_single_example(serialized, spec)
        image = features["image"]
        if self.task.scale != 1:
            pixels = tf.io.decode_png(image) * tf.constant(self.task.scale, tf.uint8)
            image = tf.io.encode_png(pixels)
        return {"image": image, "label": labels.label(features), "filename": tf.constant("")}
