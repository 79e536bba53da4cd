"""What is learned: a task owns model, losses and metrics, and knows nothing of the loop."""

import abc
from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf
from matplotlib.figure import Figure

Batch = Mapping[str, tf.Tensor]
Values = dict[str, tf.Tensor]


class Task(abc.ABC):
    """A learning problem, in terms of single examples.

    The loop asks for one value an example and does the rest itself: masking of padding, averaging
    over batches and replicas, gradients, logs. So a task is written once and runs on any device.

    Attributes:
      metric: the evaluation value that decides which checkpoint is best; larger is better.
      forms: in how many forms a training step comes, such as patch sizes. If there are several,
        `draw` returns `"form"`, an int32 scalar below it, and `train_values` finds a Python number
        there: the step's graph holds every form.
    """

    metric: str
    forms: int = 1

    @abc.abstractmethod
    def build_model(self) -> keras.Model:
        """Creates the model with its weights; called inside the strategy's scope."""

    def prepare(self, model: keras.Model, train_input: object) -> None:  # noqa: B027
        """Makes what only training needs, such as a teacher; by default nothing.

        Called once before a training run is set up, in the strategy's scope; evaluation and export
        do without.

        Args:
          model: what `build_model` returned.
          train_input: the training input.

        Raises:
          ValueError: if what is needed cannot be had or does not fit.
        """

    def augment(self, model: keras.Model, batch: Batch, key: tf.Tensor) -> Batch:
        """Changes a training batch on the device, before `train_values`; by default not at all.

        Args:
          model: what `build_model` returned.
          batch: a replica's: `"image"`, `"label"`, `"mask"` [batch] (0 for examples that are
            none), ... and what `draw` added.
          key: int32 [2], the seed of whatever is random here; it follows from the run's seed, the
            step and the replica.

        Returns:
          The batch that `train_values` gets, of static shapes.
        """
        return batch

    def draw(self, key: tf.Tensor) -> dict[str, tf.Tensor]:
        """What a step draws once, the same on all replicas, such as a patch size.

        Args:
          key: int32 [2], the seed; it follows from the run's seed and the step.

        Returns:
          Name -> scalar, which the step's batch gets in addition; by default nothing.
        """
        return {}

    @abc.abstractmethod
    def train_values(self, model: keras.Model, batch: Batch) -> Values:
        """Values of training examples, among them `"loss"`, which is minimised.

        Args:
          model: what `build_model` returned.
          batch: `"image"` [batch, height, width, channels], `"label"` [batch] or float
            [batch, classes], ... and what `augment` and `draw` added.

        Returns:
          Name -> float32 [batch].
        """

    @abc.abstractmethod
    def eval_values(self, model: keras.Model, batch: Batch) -> Values:
        """Values of evaluation examples, among them `"loss"` and the task's `metric`.

        Args:
          model: what `build_model` returned.
          batch: as for `train_values`.

        Returns:
          Name -> float32 [batch].
        """

    def labelled(self, batch: Batch) -> tf.Tensor:
        """Which examples an evaluation can measure; the others are left out of its means, counted.

        Args:
          batch: as for `train_values`.

        Returns:
          float32 [batch] of 0 and 1; by default 1 for all.
        """
        return tf.ones_like(batch["mask"])

    @abc.abstractmethod
    def predict_values(self, model: keras.Model, images: tf.Tensor) -> Values:
        """Outputs of a model for preprocessed images, as evaluation computes and serving returns.

        Args:
          model: what `build_model` returned.
          images: [batch, height, width, channels], preprocessed.

        Returns:
          Name -> [batch, ...].
        """

    def figure(self, rows: Sequence[Mapping], class_names: Sequence[str]) -> Figure | None:
        """A picture of what the model makes of some examples; by default there is none.

        Args:
          rows: for each example its input and `predict_values`, as NumPy arrays.
          class_names: a name a class.
        """
        return None

    def facts(self) -> dict[str, str]:
        """What a run's report shall say of the task, subject -> text; by default nothing."""
        return {}

    def identity(self) -> dict[str, str]:
        """What a resumed run must share with the one before, beyond its configuration.

        Returns:
          Subject -> text, such as the hash of a teacher's weights; by default nothing.
        """
        return {}

    def check_input(self, model: keras.Model, train_or_eval_input: object) -> None:  # noqa: B027
        """Raises ValueError if a model cannot learn from an input; by default all is well."""
