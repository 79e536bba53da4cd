"""Training at a patch size drawn in each step (FlexiViT, Beyer et al., 2022)."""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from vit_tf.data.stateless_draws import uniforms
from vit_tf.models.arguments import as_pair
from vit_tf.training.tasks.base import Batch, Task, Values

# Of big_vision's recipes for images of 240 pixels (FlexiViT, section 3.3 and table 4).
PATCH_SIZES = (48, 40, 30, 24, 20, 16, 15, 12, 10, 8)


class FlexiClassification(Task):
    """Any task of a FlexiViT, at a patch size drawn each step, the same on all replicas.

    All patch sizes are forms of a step in its one graph, so nothing is traced again. With
    `Classification` this is the supervised training of FlexiViT, with `KnowledgeDistillation` its
    distillation: the teacher answers before a size is chosen, at its own.

    Evaluation measures every listed size, as `accuracy_patch16`, and their mean, as `accuracy`.
    Prediction and serving use the model's `default_patch_size`.

    A student starts from a teacher by `create_model("flexivit", weights=...)` or
    `load_checkpoint`: the patch kernel is PI-resized and the positions resized to what the student
    stores (section 3.5 of the paper).

    Args:
      task: what is learned; its model must be a FlexiViT.
      patch_sizes: sides in pixels to draw from; each must divide the image.
      weights: how often each is drawn, in any unit. Default: equally often.
      eval_patch_sizes: sides to evaluate at. Default: all of `patch_sizes`.
      metric: the evaluation value that decides which checkpoint is best, such as
        `"accuracy_patch16"`. Default: the task's own, of which the mean over sizes is taken.

    Raises:
      ValueError: for sizes, weights or a metric that do not fit.
    """

    def __init__(
        self,
        task: Task,
        patch_sizes: Sequence[int] = PATCH_SIZES,
        weights: Sequence[float] | None = None,
        eval_patch_sizes: Sequence[int] | None = None,
        metric: str | None = None,
    ):
        self._task = task
        self._sizes = _checked_sizes("patch_sizes", patch_sizes)
        chosen = patch_sizes if eval_patch_sizes is None else eval_patch_sizes
        self._eval_sizes = _checked_sizes("eval_patch_sizes", chosen)
        self._bounds = _bounds(weights, len(self._sizes))
        self.forms = len(self._sizes)
        self.metric = metric or task.metric
        of_one_size = re.search(r"_patch(\d+)$", self.metric)
        if of_one_size and int(of_one_size.group(1)) not in self._eval_sizes:
            raise ValueError(
                f"FlexiClassification.metric {metric!r} is of a size that is not evaluated; the "
                f"sizes are {', '.join(map(str, self._eval_sizes))}"
            )

    def build_model(self) -> keras.Model:
        """Creates the model; see `Task.build_model`."""
        model = self._task.build_model()
        if "patch_size" not in inspect.signature(model.call).parameters:
            name = getattr(model, "variant", None) or type(model).__name__
            raise ValueError(
                "FlexiClassification needs a model whose calls choose the patch size, such as "
                f"'flexivit_s' or one of the family 'flexivit'; given {name}"
            )
        for size in (*self._sizes, *self._eval_sizes):
            if any(side % size for side in model.image_size):
                height, width = model.image_size
                raise ValueError(
                    f"patch size {size} of FlexiClassification does not divide the image of "
                    f"{height}x{width} pixels; change patch_sizes or create_model.image_size"
                )
        return model

    def prepare(self, model: keras.Model, train_input: object) -> None:
        """As the task does; see `Task.prepare`."""
        self._task.prepare(model, train_input)

    def draw(self, key: tf.Tensor) -> dict[str, tf.Tensor]:
        """Draws a patch size, as its place in the list; see `Task.draw`."""
        (number,) = tf.unstack(uniforms([1], key))
        passed = tf.cast(number >= tf.constant(self._bounds, tf.float32), tf.int32)
        return {**self._task.draw(key), "form": tf.reduce_sum(passed)}

    def augment(self, model: keras.Model, batch: Batch, key: tf.Tensor) -> Batch:
        """As the task does; see `Task.augment`."""
        return self._task.augment(model, batch, key)

    def train_values(self, model: keras.Model, batch: Batch) -> Values:
        """The task's values at the patch size of the step; see `Task.train_values`."""
        at_size = _AtPatchSize(model, self._sizes[batch["form"]])
        return self._task.train_values(at_size, batch)

    def eval_values(self, model: keras.Model, batch: Batch) -> Values:
        """The task's values at each patch size and their means; see `Task.eval_values`."""
        by_size = {
            size: self._task.eval_values(_AtPatchSize(model, size), batch)
            for size in self._eval_sizes
        }
        names = by_size[self._eval_sizes[0]]
        means = {
            name: tf.reduce_mean([values[name] for values in by_size.values()], axis=0)
            for name in names
        }
        each = {
            f"{name}_patch{size}": value
            for size, values in by_size.items()
            for name, value in values.items()
        }
        return means | each

    def labelled(self, batch: Batch) -> tf.Tensor:
        """As the task has it; see `Task.labelled`."""
        return self._task.labelled(batch)

    def predict_values(self, model: keras.Model, images: tf.Tensor) -> Values:
        """The task's outputs at the default patch size; see `Task.predict_values`."""
        return self._task.predict_values(model, images)

    def figure(self, rows: Sequence[Mapping], class_names: Sequence[str]) -> Figure | None:
        """The task's picture; see `Task.figure`."""
        return self._task.figure(rows, class_names)

    def facts(self) -> dict[str, str]:
        """The task's facts, and which sizes are drawn how often; see `Task.facts`."""
        shares = np.diff([0.0, *self._bounds, 1.0])
        drawn = ", ".join(
            f"{size} ({share:.0%})" for size, share in zip(self._sizes, shares, strict=True)
        )
        return {**self._task.facts(), "patches": drawn}

    def identity(self) -> dict[str, str]:
        """As the task has it; see `Task.identity`."""
        return self._task.identity()

    def check_input(self, model: keras.Model, train_or_eval_input: object) -> None:
        """As the task does; see `Task.check_input`."""
        self._task.check_input(model, train_or_eval_input)


class _AtPatchSize:
    """A model whose calls choose a patch size, to a task that knows nothing of it."""

    def __init__(self, model: keras.Model, patch_size: int):
        self._model = model
        self._patch_size = patch_size

    def __call__(self, images: tf.Tensor, training: bool | None = None) -> Any:
        return self._model(images, training=training, patch_size=self._patch_size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _checked_sizes(name: str, sizes: Sequence[int]) -> list[int]:
    sizes = [as_pair(name, size)[0] for size in sizes]
    if not sizes or len(set(sizes)) < len(sizes):
        raise ValueError(
            f"FlexiClassification.{name} must hold at least one size and none twice; given {sizes}"
        )
    return sizes


def _bounds(weights: Sequence[float] | None, count: int) -> list[float]:
    """Where in (0, 1) the draw of one size ends and the next one's begins, [count - 1]."""
    weights = [1.0] * count if weights is None else weights
    if len(weights) != count or min(weights) < 0 or not sum(weights) > 0:
        raise ValueError(
            f"FlexiClassification.weights must be {count} numbers from 0 up, one a patch size, not "
            f"all 0; given {weights}"
        )
    return list(np.cumsum(weights)[:-1] / np.sum(weights))
