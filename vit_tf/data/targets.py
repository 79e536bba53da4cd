"""What a batch holds as an example's `label`: a class number, or a vector of targets."""

import tensorflow as tf

from vit_tf.data.op_registry import require
from vit_tf.data.preprocess import Preprocess
from vit_tf.data.sources import Source


class Targets:
    """Brings labels of a source, or what a preprocessing made of them, into a batch's form.

    An integer stays one. Several, of a multi-label source, become a vector with 1 at each of them.
    A vector that the preprocessing made (`onehot`) stays as it is, except that an example without
    labels has zeros throughout, whatever the vector's value of absent classes.

    Args:
      source: where the labels come from.
      preprocess: what is done to them; where it drops them, they are the source's.

    Attributes:
      image_shape: of preprocessed images.
      num_classes: integers are in `[0, num_classes)`, vectors have so many entries.
      spec: the batch's `label` of one example: int32 `[]` or float32 `[num_classes]`.

    Raises:
      ValueError: the preprocessed label, or image, has no form that a batch can hold.
    """

    def __init__(self, source: Source, preprocess: Preprocess):
        stored = tf.TensorSpec([None] if source.multi_label else [], tf.int64)
        results = preprocess.result_specs(label=stored, filename=tf.TensorSpec([], tf.string))
        if "labels" in results:
            raise ValueError(
                f"{str(preprocess)!r} makes an entry 'labels', which nobody reads; Input takes "
                "'label'. Leave key_result out"
            )
        label = results.get("label", stored)
        self._multi_label = source.multi_label
        self.image_shape = tuple(results["image"].shape)
        self.num_classes = source.num_classes
        self.spec = tf.TensorSpec([self.num_classes], tf.float32)
        if label.dtype.is_integer and label.shape.rank == 0:
            self.spec = tf.TensorSpec([], tf.int32)
        elif label.dtype.is_floating and label.shape.rank == 1 and label.shape[0]:
            self.num_classes = label.shape[0]
            self.spec = tf.TensorSpec([self.num_classes], tf.float32)
        elif not (label.dtype.is_integer and label.shape.rank == 1):
            raise ValueError(
                f"after {str(preprocess)!r} a label is {label.dtype.name} {label.shape}; Input "
                "takes one or several class numbers, or a float vector of fixed length, such as "
                f"onehot({source.num_classes}) makes"
            )

    def __call__(self, stored: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        """The batch's `label` of an example (TensorFlow graph code).

        Args:
          stored: the source's.
          label: what the preprocessing made of it.

        Returns:
          A tensor as `spec` says. Class numbers that the preprocessing made are an error outside of
          the classes; those of the source are checked before.
        """
        if label.dtype.is_floating:
            target = tf.cast(label, tf.float32)
            if self._multi_label:
                target *= tf.cast(tf.size(stored) > 0, tf.float32)
        else:
            number = tf.cast(label, tf.int32)
            if label is not stored:
                inside = tf.reduce_all(tf.logical_and(number >= 0, number < self.num_classes))
                good = require(inside, f"a label is outside 0..{self.num_classes - 1}")
                number *= tf.cast(good, tf.int32)
            target = number if number.shape.rank == 0 else self._multi_hot(number)
        return target

    def _multi_hot(self, labels: tf.Tensor) -> tf.Tensor:
        return tf.minimum(tf.reduce_sum(tf.one_hot(labels, self.num_classes), axis=0), 1.0)
