"""Labelled images to compare with: which of them are nearest in a model's features."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vit_tf.export.image_arguments import list_images, read_ahead
from vit_tf.export.predictors.base import Predictor


@dataclasses.dataclass(frozen=True)
class Neighbour:
    """An image of a gallery beside the one that was asked for.

    Args:
      file: where it lies.
      label: its class, the name of its folder.
      similarity: cosine of the two feature vectors, -1 to 1.
    """

    file: Path
    label: str
    similarity: float


class ImageGallery:
    """A folder of labelled images, a sub-folder a class, with their feature vectors.

    Args:
      predictor: of a model that has feature vectors.
      folder: the gallery.
      batch_size: images at a time.

    Attributes:
      files: the images that could be read, in the order of classes and names.
      labels: the class of each.
      problems: a sentence for each image that could not be read.

    Raises:
      ValueError: if there is no readable image in sub-folders, or the model has no features.
    """

    def __init__(self, predictor: Predictor, folder: str, batch_size: int = 32):
        self._predictor = predictor
        self.problems: list[str] = []
        self.files: list[Path] = []
        vectors = []
        files, _ = list_images([folder])
        files = [file for file in files if file.parent != Path(folder)]
        for batch in read_ahead(files, batch_size, self.problems):
            found = predictor.embed([content for _, content in batch])
            for (file, _), vector in zip(batch, found, strict=True):
                if vector is None:
                    self.problems.append(f"{file} is no image that can be read")
                else:
                    self.files.append(file)
                    vectors.append(vector)
        if not vectors:
            raise ValueError(
                f"no image to compare with in {folder}: a gallery has a folder for each class, "
                "such as gallery/rose/1.jpg"
            )
        self.labels = [file.relative_to(folder).parts[0] for file in self.files]
        self._vectors = _unit(np.stack(vectors))

    def nearest(self, image: bytes, count: int = 5) -> list[Neighbour]:
        """The most similar images, the most similar first; none of an image that is none."""
        [vector] = self._predictor.embed([image])
        if vector is None:
            return []
        similarities = self._vectors @ _unit(vector[None])[0]
        order = np.argsort(-similarities, kind="stable")[:count]
        return [
            Neighbour(self.files[place], self.labels[place], float(similarities[place]))
            for place in order
        ]

    def examples(self, count: int) -> list[Path]:
        """Some images, of as many classes as possible."""
        first: dict[str, list[Path]] = {}
        for file, label in zip(self.files, self.labels, strict=True):
            first.setdefault(label, []).append(file)
        return _alternating(list(first.values()))[:count]


def _alternating(groups: Sequence[Sequence[Path]]) -> list[Path]:
    """The first of each group, then the second of each, and so on."""
    longest = max(map(len, groups))
    return [group[n] for n in range(longest) for group in groups if n < len(group)]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
