"""A teacher's answers in a file, for training whose images do not change."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vit_tf import planning
from vit_tf.training.inputs import make_dataset
from vit_tf.training.teachers.teacher import Teacher

_DTYPES = ("float16", "float32")


def write_answers(
    teacher: Teacher, student: keras.Model, eval_input: Any, path: str, dtype: str = "float16"
) -> str:
    """Writes a teacher's logits for every image of a split.

    Args:
      teacher: who answers.
      student: whose classes and images the answers are for.
      eval_input: a `vit_tf.data.Input` with `training=False`: the split and the preprocessing that
        training will use.
      path: where to, ending in `.npy`; [examples, classes]. What it is stands in a JSON file
        beside it, which is written last.
      dtype: `"float16"` or `"float32"`.

    Returns:
      The path.

    Raises:
      ValueError: for an input that is for training, or another dtype or ending.
    """
    if dtype not in _DTYPES or not path.endswith(".npy"):
        raise ValueError(
            f"answers are written as {' or '.join(_DTYPES)} to a file .npy; given {dtype!r} and "
            f"{path!r}"
        )
    if eval_input.training:
        raise ValueError("write_answers takes every image once: an Input with training=False")
    teacher.prepare(student, eval_input)
    answer = tf.function(teacher.__call__, autograph=False)
    description = {**_description(eval_input), "classes": student.num_classes}
    table = np.zeros([description["examples"], student.num_classes], dtype)
    seen = np.zeros(len(table), bool)
    for batch in make_dataset(eval_input):
        logits = answer({"image": batch["image"]}).numpy()
        real = batch["mask"].numpy() > 0
        index = batch["index"].numpy()[real]
        table[index], seen[index] = logits[real], True
    if not seen.all():
        raise ValueError(f"{int((~seen).sum())} images of the split could not be read")
    with tf.io.gfile.GFile(path, "wb") as file:
        np.save(file, table)
    header = {**description, "teacher": teacher.facts()}
    with tf.io.gfile.GFile(_header_path(path), "w") as file:
        file.write(json.dumps(header, indent=1) + "\n")
    return path


class CachedTeacher:
    """Looks a teacher's answers up by the number of an example in its split.

    Only for images that are the same in every epoch: no random preprocessing, no mixing. All
    answers lie in the device's memory: 2 bytes each in float16 (2.6 GB for ImageNet-1k).

    Args:
      path: what `write_answers` wrote.

    Raises:
      FileNotFoundError: if there is no such file, or its JSON file is missing.
    """

    sees_mixed_images = False
    unknown_classes: tuple[int, ...] = ()

    def __init__(self, path: str | os.PathLike):
        self._path = os.fspath(path)
        names = (self._path, _header_path(self._path))
        missing = next((name for name in names if not tf.io.gfile.exists(name)), None)
        problem = missing and f"CachedTeacher: no file {missing}; vit_tf.write_answers writes it"
        if planning.is_planned():
            planning.note("teacher", self._path, problem)
        if missing:
            if not planning.is_planned():
                raise FileNotFoundError(problem)
            self._header = {"teacher": "not written yet"}
            return
        with tf.io.gfile.GFile(_header_path(self._path)) as file:
            self._header = json.loads(file.read())

    def prepare(self, student: keras.Model, train_input: Any) -> None:
        """Loads the answers; called in the strategy's scope.

        Raises:
          ValueError: if they are for another split, preprocessing or number of classes, or the
            training images are not the same in every epoch.
        """
        if planning.is_planned():
            return
        preprocess = getattr(train_input, "preprocess", None)
        if preprocess is None:
            raise ValueError("cached answers go by the index of a vit_tf.data.Input's examples")
        if preprocess.is_random:
            raise ValueError(
                f"cached answers are for images that do not change, and "
                f"{', '.join(preprocess.random_ops)} in {str(preprocess)!r} is random; leave it "
                "out, or use a Teacher"
            )
        given = {**_description(train_input), "classes": student.num_classes}
        for name, value in given.items():
            if self._header.get(name) != value:
                raise ValueError(
                    f"the answers in {self._path} are for {name} {self._header.get(name)!r}, the "
                    f"training input has {value!r}; write them again for this input"
                )
        with tf.io.gfile.GFile(self._path, "rb") as file:
            table = np.load(file, allow_pickle=False)
        self.fingerprint = hashlib.sha256(table.tobytes()).hexdigest()
        if table.shape != (given["examples"], given["classes"]):
            raise ValueError(f"{self._path} has the shape {table.shape}, and its JSON file {given}")
        self._table = tf.Variable(table, trainable=False, name="teacher_answers")

    def __call__(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """What the teacher said of `batch["index"]`, float32 [batch, classes]; of padding any."""
        rows = tf.gather(self._table, tf.maximum(batch["index"], 0))
        return tf.cast(rows, tf.float32)

    def facts(self) -> str:
        """What a run says of it."""
        return f"{self._header['teacher']}; answers from {self._path}"


def _description(data_input: Any) -> dict[str, Any]:
    """What answers must agree in with the input that they are used for."""
    source = data_input.source
    return {
        "split": source.name,
        "examples": sum(segment.num_records for segment in source.segments),
        "preprocess": str(data_input.preprocess),
    }


def _header_path(path: str) -> str:
    return path.removesuffix(".npy") + ".json"
