"""A frozen model that answers for the images that a student is trained on."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from vit_tf import planning
from vit_tf.layers.resampling import resize_matrix
from vit_tf.models.preprocessing import Preprocessing
from vit_tf.training.teachers import answering
from vit_tf.training.teachers.class_map import Classes, ClassMap
from vit_tf.training.teachers.scaling import Scaling, scaling_of


class Teacher:
    """Any classifier as a teacher: frozen, in inference mode, in its own precision.

    It sees what the student sees, augmented and mixed: the scaling of the student's images is
    undone, they are resized on the device to the teacher's size (by constant matrices, which any
    device compiles) and scaled as the teacher's card has it. Its weights are none of the student's
    checkpoints.

    In gin the student and the teacher are made in scopes of their own, since what is bound to
    `create_model` without a scope holds for both:

        TokenDistillation.model = @student/create_model
        TokenDistillation.teacher = @Teacher()
        Teacher.model = @teacher/create_model
        teacher/create_model.name = "bit_r50x1"
        Teacher.weights = "BiT-S-R50x1-ILSVRC2012.npz"

    Args:
      model: a function without arguments that returns a Keras model, which gives logits for
        `training=False`; or the path of a `.keras` file or of the folder of a SavedModel. A
        SavedModel of `Estimator.export_saved_model` does its own preprocessing (resizing and
        cropping as in its evaluation) on the student's images, rounded to bytes; one of Keras or
        TensorFlow is called with images as `preprocessing` says.
      weights: checkpoint for a model of `create_model`, as `load_checkpoint` takes it: `.npz`,
        `.pth`, `.safetensors`, `.keras` or a training checkpoint; all of it must fit. Published
        weights go by their tag: `teacher/create_model.weights`.
      preprocessing: what images the teacher takes, where its card does not say it or says it
        wrongly: a `vit_tf.models` `Preprocessing` or some of its fields.
      classes: for each of the student's classes the number of the teacher's, -1 if it has none, or
        a JSON file; see `ClassMap`. Default: both have the same classes.
      resize: how images get the teacher's size, a method of `layers.resize_matrix`. Default:
        bilinear, antialiased when shrinking.
    """

    def __init__(
        self,
        model: Callable[[], keras.Model] | str | os.PathLike,
        weights: str | None = None,
        preprocessing: Mapping[str, Any] | Preprocessing | None = None,
        classes: Classes | None = None,
        resize: str = "bilinear_antialias",
    ):
        resize_matrix(1, 1, resize)  # raises for a name that there is not
        if weights is not None and not callable(model):
            raise ValueError(f"Teacher.weights = {weights!r}, but {model!r} has weights of its own")
        self._model = model
        self._weights = weights
        self._preprocessing = preprocessing
        self._classes = classes
        self._resize = resize
        self._answering: answering.Answering | None = None

    sees_mixed_images = True

    @property
    def fingerprint(self) -> str:
        """Hash of the weights, in hexadecimal; known once it is prepared."""
        return self._answering.fingerprint

    @property
    def unknown_classes(self) -> list[int]:
        """The student's classes that the teacher lacks; known once it is prepared."""
        return self._map.unknown

    def prepare(self, student: keras.Model, train_input: Any) -> None:
        """Makes the teacher for a student; called in the strategy's scope, before any step.

        Args:
          student: who learns.
          train_input: from what; its preprocessing tells how images are scaled, else the student's
            card does.

        Raises:
          ValueError: if the teacher has fresh or other weights, other classes or channels, or
            nothing tells what images it takes.
          FileNotFoundError: if it is not there.
        """
        if planning.is_planned():
            self._plan(student, train_input)
            return
        student_facts = getattr(student, "preprocessing", None)
        scaling = scaling_of(train_input, student_facts)
        self._scaling = lambda: scaling
        if callable(self._model):
            self._answering = answering.of_keras(self._model(), self._weights, self._preprocessing)
        else:
            self._answering = answering.of_file(os.fspath(self._model), self._preprocessing)
        shape = getattr(train_input, "image_shape", None)
        self._image_shape = shape or (*student_facts.image_size, student_facts.channels)
        classes = self._answering.num_classes or self._count_classes()
        names = getattr(train_input, "class_names", None)
        self._map = ClassMap(self._classes, student.num_classes, classes, names)

    def __call__(self, batch: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """What the teacher says of a batch.

        Args:
          batch: `"image"` [batch, height, width, channels], as the student sees them.

        Returns:
          float32 [batch, classes], logits in the order of the student's classes, through which no
          gradient flows.
        """
        return self._answers(self._outputs(batch["image"]))

    def with_features(
        self, batch: Mapping[str, tf.Tensor], names: Sequence[str]
    ) -> dict[str, tf.Tensor]:
        """What the teacher says of a batch, and tensors on the way to it.

        Args:
          batch: as above.
          names: of intermediates, as `extract_features` takes them.

        Returns:
          `"logits"` as above, and the tensors by their names, through which no gradient flows.

        Raises:
          ValueError: if the teacher is no model of `create_model`, or has no such intermediate.
        """
        made = self._made()
        if made.features is None:
            raise ValueError(
                f"the teacher {made.name} shows its logits alone; {', '.join(names)} can be had of "
                "a model of create_model: Teacher.model = @teacher/create_model"
            )
        features = made.features(self._as_it_sees(batch["image"]), ["logits", *names])
        logits = self._answers(features["logits"])
        return {**{name: tf.stop_gradient(features[name]) for name in names}, "logits": logits}

    def facts(self) -> str:
        """What a run says of it, with the hash of its weights, by which another one is noticed."""
        if self._answering is None or not self._answering.fingerprint:
            return "not loaded"
        made = self._answering
        size = "the student's images"
        if made.image_size:
            size = "{}x{}".format(*made.image_size)
            if made.image_size != tuple(self._image_shape[:2]):
                given = "{}x{}".format(*self._image_shape[:2])
                size += f" (from {given}, {self._resize})"
        file = f", {self._weights}" if self._weights else ""
        return f"{made.name}{file} at {size}, {self._map}, weights {made.fingerprint[:16]}"

    def _plan(self, student: keras.Model, train_input: Any) -> None:
        """Notes the teacher's file, and checks the classes if its model tells them.

        A model that is built here can be traced, so that the step is known; a file is not loaded.
        """
        path = self._weights if callable(self._model) else os.fspath(self._model)
        if path is not None:
            missing = f"{path} is not there" if not _exists(path) else None
            planning.note("teacher", path, missing)
        classes = None
        if callable(self._model):
            self._answering = answering.of_fresh(self._model(), self._preprocessing)
            classes = self._answering.num_classes
            student_facts = getattr(student, "preprocessing", None)

            def scaling() -> Scaling:
                with tf.init_scope():  # not in the step's graph, nor in that where a plan is made
                    return scaling_of(train_input, student_facts)

            self._scaling = scaling
        self._map = ClassMap(
            self._classes,
            student.num_classes,
            classes or student.num_classes,
            getattr(train_input, "class_names", None),
        )

    def _made(self) -> answering.Answering:
        if self._answering is None:
            raise ValueError(
                f"what the teacher {self._model} does is in its file, which a plan does not load; "
                "name the function that builds it, Teacher.model = @teacher/create_model"
            )
        return self._answering

    def _as_it_sees(self, images: tf.Tensor) -> tf.Tensor:
        """The student's images in the teacher's size and range."""
        made, images = self._made(), tf.cast(images, tf.float32)
        if made.image_size:
            images = resized(images, made.image_size, self._resize)
        return self._scaling().convert(images, made.scaling)

    def _answers(self, outputs: tf.Tensor) -> tf.Tensor:
        """Logits of the student's classes, of those of the teacher."""
        return tf.stop_gradient(self._map(tf.cast(outputs, tf.float32)))

    def _outputs(self, images: tf.Tensor) -> tf.Tensor:
        made = self._made()
        outputs = made.logits(self._as_it_sees(images))
        if isinstance(outputs, Mapping):
            name = "logits" if "logits" in outputs else next(iter(outputs))
            outputs = outputs[name] if len(outputs) == 1 or name == "logits" else outputs
        if not tf.is_tensor(outputs) or outputs.shape.rank != 2:
            raise ValueError(
                f"the teacher {made.name} must return logits [batch, classes]; it returned "
                f"{tf.nest.map_structure(lambda x: getattr(x, 'shape', x), outputs)}"
            )
        return outputs

    def _count_classes(self) -> int:
        """The size of the outputs, found without running the model."""
        spec = tf.TensorSpec([1, *self._image_shape], tf.float32)
        traced = tf.function(self._outputs, autograph=False).get_concrete_function(spec)
        if traced.output_shapes[-1] is None:
            raise ValueError(f"the teacher {self._answering.name} does not tell how many classes")
        return traced.output_shapes[-1]


def resized(images: tf.Tensor, image_size: tuple[int, int], method: str) -> tf.Tensor:
    """Images [batch, height, width, channels] at another size, by one matrix an axis.

    Args:
      images: float, of static height and width.
      image_size: (height, width).
      method: of `layers.resize_matrix`.
    """
    for equation, old, new in zip(
        ("Hh,bhwc->bHwc", "Ww,bhwc->bhWc"), images.shape[1:3], image_size, strict=True
    ):
        if old != new:
            matrix = tf.constant(_matrix(old, new, method), images.dtype)
            images = tf.einsum(equation, matrix, images)
    return images


def _exists(path: str) -> bool:
    """Whether a checkpoint is there: a file, a folder, or the stem of a training checkpoint."""
    return tf.io.gfile.exists(path) or tf.io.gfile.exists(f"{path}.index")


@functools.cache
def _matrix(old: int, new: int, method: str) -> np.ndarray:
    return resize_matrix(old, new, method)
