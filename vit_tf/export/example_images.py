"""Encoded images without labels, in the place of an evaluation's data."""

import os
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from vit_tf.data import Preprocess
from vit_tf.export.image_arguments import list_images


class ExampleImages:
    """A few images that an export is checked with where there is no data set.

    They take evaluation's way, as those of a `vit_tf.data.Input` do.

    Args:
      images: encoded images, or names of files, folders and patterns such as `"photos/*.jpg"`.
      preprocess: string of ops, or a `Preprocess`.
      most: how many are taken, the first ones.

    Raises:
      FileNotFoundError: if an argument names no image.
    """

    class_names = None

    def __init__(
        self,
        images: Sequence[bytes | str | os.PathLike],
        preprocess: str | Preprocess,
        most: int = 32,
    ):
        self.preprocess = Preprocess(preprocess) if isinstance(preprocess, str) else preprocess
        self.image_shape = self.preprocess.image_shape
        named = [image for given in images for image in _named(given)][:most]
        if not named:
            raise FileNotFoundError("there is no image to check the export with")
        self._names = [name for name, _ in named]
        self._images = [
            Path(name).read_bytes() if content is None else content for name, content in named
        ]
        self.batch_size = len(named)

    def __call__(self) -> tf.data.Dataset:
        """One batch; see `vit_tf.data.Input`."""
        images = tf.data.Dataset.from_tensor_slices({"image": self._images}).enumerate()
        examples = images.map(
            lambda index, features: {
                "image": self.preprocess.on_example(features)["image"],
                "mask": tf.ones([]),
                "index": index,
            }
        )
        return examples.batch(self.batch_size).map(
            lambda batch: {**batch, "image": self.preprocess.on_batch(batch["image"])}
        )

    def encoded(self) -> tf.data.Dataset:
        """The images as they were given; see `vit_tf.data.Input`."""
        images = tf.data.Dataset.from_tensor_slices(self._images).enumerate()
        return images.map(lambda index, image: {"index": index, "image": image})

    def diagnose(self) -> str | None:
        """Names the first image that cannot be read."""
        for name, image in zip(self._names, self._images, strict=True):
            try:
                self.preprocess.image_from_bytes(image)
            except tf.errors.OpError as error:
                return f"{name} cannot be read ({len(image)} bytes): {error.message}"
        return None


def _named(given: bytes | str | os.PathLike) -> list[tuple[str, bytes | None]]:
    """Names of what an argument stands for, with the content where that was given."""
    if isinstance(given, bytes):
        return [("an image", given)]
    files, problems = list_images([os.fspath(given)])
    if problems:
        raise FileNotFoundError(problems[0])
    return [(str(file), None) for file in files]
