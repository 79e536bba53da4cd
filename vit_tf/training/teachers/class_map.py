"""Which of a teacher's classes is which of the student's."""

import json
import os
from collections.abc import Mapping, Sequence

import tensorflow as tf

# What a teacher says for a class it does not know: a probability that is 0 in float32 at any usual
# temperature, yet no infinity, of which the gradients of a KL divergence would be NaN.
_UNKNOWN_LOGIT = -1e4

Classes = str | os.PathLike | Sequence[int | None]


class ClassMap:
    """Brings a teacher's logits into the order of the student's classes.

    Probabilities are then those among the student's classes alone.

    Args:
      classes: for each of the student's classes the number of the teacher's, -1 or None if it has
        none; or a JSON file of such a list, or of an object from a class's name or number to the
        teacher's number or null. None: both have the same classes.
      student_classes: how many the student has.
      teacher_classes: how many the teacher has.
      class_names: of the student, for a file that names them.

    Raises:
      ValueError: if the numbers of classes differ and nothing maps them, or the map does not fit.
    """

    def __init__(
        self,
        classes: Classes | None,
        student_classes: int,
        teacher_classes: int,
        class_names: Sequence[str] | None = None,
    ):
        if classes is None and student_classes != teacher_classes:
            raise ValueError(
                f"the teacher has {teacher_classes} classes and the student {student_classes}; "
                "Teacher.classes says which of the teacher's each of the student's is: a list of "
                f"{student_classes} numbers (-1: none of them), or a JSON file with it"
            )
        self._size = teacher_classes
        if classes is None:
            self.indices = None
            return
        name, what = "Teacher.classes", classes
        if isinstance(classes, str | os.PathLike):
            name = f"{name} ({os.fspath(classes)})"
            what = _read(os.fspath(classes), student_classes, class_names)
        self.indices = [-1 if number is None else number for number in what]
        if len(self.indices) != student_classes:
            raise ValueError(
                f"{name} has {len(self.indices)} entries and the student {student_classes} classes"
            )
        for number in self.indices:
            if not isinstance(number, int) or not -1 <= number < teacher_classes:
                raise ValueError(
                    f"{name} must hold numbers of the teacher's {teacher_classes} classes, 0 to "
                    f"{teacher_classes - 1}, or -1 for none; it holds {number!r}"
                )
        if max(self.indices) < 0:
            raise ValueError(f"{name} gives none of the student's classes one of the teacher's")

    @property
    def unknown(self) -> list[int]:
        """The student's classes that the teacher lacks."""
        return [place for place, number in enumerate(self.indices or []) if number < 0]

    def __call__(self, logits: tf.Tensor) -> tf.Tensor:
        """Logits [batch, teacher's classes] to [batch, student's classes]."""
        if self.indices is None:
            return logits
        logits = tf.pad(logits, [[0, 0], [0, 1]], constant_values=_UNKNOWN_LOGIT)
        places = [self._size if number < 0 else number for number in self.indices]
        return tf.gather(logits, tf.constant(places), axis=-1)

    def __str__(self) -> str:
        if self.indices is None:
            return f"{self._size} classes"
        text = f"{len(self.indices)} of its {self._size} classes chosen"
        if self.unknown:
            numbers = ", ".join(map(str, self.unknown[:10])) + ", ..." * (len(self.unknown) > 10)
            text += f"; it says probability 0 for {len(self.unknown)} that it lacks: {numbers}"
        return text


def _read(
    path: str, student_classes: int, class_names: Sequence[str] | None
) -> Sequence[int | None]:
    with tf.io.gfile.GFile(path) as file:
        try:
            content = json.loads(file.read())
        except ValueError as error:
            raise ValueError(f"Teacher.classes: {path} is not JSON: {error}") from error
    if isinstance(content, Mapping):
        keys = [str(number) for number in range(student_classes)]
        names = dict(zip(class_names or [], keys, strict=False))
        by_number = {names.get(key, key): number for key, number in content.items()}
        strange = sorted(set(by_number) - set(keys))
        missing = sorted(set(keys) - set(by_number), key=int)
        if strange or missing:
            raise ValueError(
                f"Teacher.classes: {path} must name each of the student's {student_classes} "
                f"classes; unknown: {strange[:5]}, missing: {missing[:5]}"
            )
        return [by_number[key] for key in keys]
    if not isinstance(content, list):
        raise ValueError(f"Teacher.classes: {path} must hold a list or an object")
    return content
