"""Pictures of a run for TensorBoard: training images as the model sees them, and weights."""

import keras
import tensorflow as tf
from matplotlib.figure import Figure

from vit_tf.analysis.png import write_png
from vit_tf.models.preprocessing import Preprocessing
from vit_tf.models.weight_names import weight_names
from vit_tf.training.model_dir import ModelDir
from vit_tf.training.run_log import RunLog


class Pictures:
    """Writes what is due whenever a loop has ended.

    Args:
      log: where to.
      model: whose images and weights these are.
      image_interval: steps between pictures of training images; None: one picture, after the
        first loop of a run.
      histogram_interval: steps between histograms of all weights; None writes none.
    """

    def __init__(
        self,
        log: RunLog,
        model: keras.Model,
        image_interval: int | None,
        histogram_interval: int | None,
    ):
        self._log = log
        self._model = model
        self._image_interval = image_interval
        self._histogram_interval = histogram_interval
        self._last_step = 0

    def start(self, step: int) -> None:
        """Says where the run stands."""
        self._last_step = step

    def update(self, step: int, images: tf.Tensor | None) -> None:
        """Writes what became due since the last call.

        Args:
          step: optimizer steps done.
          images: the last step's, as the model saw them, [images, height, width, channels].
        """
        first = self._last_step == 0
        if images is not None and (first or self._due(self._image_interval, step)):
            shown = in_unit_range(images, getattr(self._model, "preprocessing", None))
            self._log.write_image("train", "training_images", shown, step)
        if self._due(self._histogram_interval, step):
            weights = weight_names(self._model.weights)
            self._log.write_histograms({n: w.value for n, w in weights.items()}, step)
        self._last_step = step

    def _due(self, interval: int | None, step: int) -> bool:
        return interval is not None and step // interval > self._last_step // interval


def keep_figure(model_dir: ModelDir, name: str, figure: Figure, step: int) -> str:
    """Writes a figure as PNG to `pictures/` and to TensorBoard; returns the file's path."""
    path = model_dir.join("pictures", f"{name}.png")
    image = tf.io.decode_png(write_png(figure, path), channels=3)[None]
    RunLog(model_dir).write_image("eval", name, image, step)
    return path


def in_unit_range(images: tf.Tensor, preprocessing: Preprocessing | None) -> tf.Tensor:
    """Undoes a model's scaling of pixels: [0, 1] for black to white, clipped.

    Args:
      images: [batch, height, width, channels].
      preprocessing: the model's; None for one that does not tell, whose smallest and largest value
        become black and white.

    Returns:
      The same shape; of images with other than 1, 3 or 4 channels only the first channel.
    """
    images = tf.cast(images, tf.float32)
    if preprocessing is None:
        low, high = tf.reduce_min(images), tf.reduce_max(images)
        images = tf.math.divide_no_nan(images - low, high - low)
    elif preprocessing.mean is not None:
        images = images * tf.constant(preprocessing.std) + tf.constant(preprocessing.mean)
    else:
        low, high = preprocessing.value_range
        images = (images - low) / (high - low)
    if images.shape[-1] not in (1, 3, 4):
        images = images[..., :1]
    return tf.clip_by_value(images, 0.0, 1.0)
