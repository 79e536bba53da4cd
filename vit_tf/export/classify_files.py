"""Image files through a predictor, batch by batch."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vit_tf.analysis.attention_overlay import attention_picture
from vit_tf.analysis.whole_file import write_whole
from vit_tf.export.image_arguments import names_below_common_folder, read_ahead
from vit_tf.export.predictors.base import Prediction, Predictor

Batch = list[tuple[Path, bytes]]


def classify_files(
    predictor: Predictor,
    files: Sequence[Path],
    batch_size: int,
    problems: list[str],
    with_batch: Callable[[Batch], None] | None = None,
) -> Iterator[tuple[Path, Prediction]]:
    """Yields each image with its classes, in the order given.

    Args:
      predictor: what classifies.
      files: to classify.
      batch_size: images at a time.
      problems: gets a sentence for each file that cannot be read or classified.
      with_batch: is given each batch's images that were classified, before they are yielded.

    Raises:
      ValueError: from the predictor, e.g. of a server that has no such model.
    """
    for batch in read_ahead(files, batch_size, problems):
        predictions = predictor.classify([content for _, content in batch])
        rows = list(zip(batch, predictions, strict=True))
        problems += [f"{file}: {made.error}" for (file, _), made in rows if made.error]
        fine = [(item, made) for item, made in rows if not made.error]
        if with_batch is not None and fine:
            with_batch([item for item, _ in fine])
        yield from ((file, made) for (file, _), made in fine)


class AttentionWriter:
    """Writes what a model looked at beside what it saw, a PNG an image.

    Args:
      predictor: of a model with attention.
      files: all that will be given, from which the pictures' names are made.
      folder: where they go, with the folders of `files` below the one that holds all of them;
        `a/photo.jpg` becomes `a/photo.jpg.png`.
    """

    def __init__(self, predictor: Predictor, files: Sequence[Path], folder: Path):
        self._predictor = predictor
        names = names_below_common_folder(files)
        self._paths = {
            file: folder / f"{name}.png" for file, name in zip(files, names, strict=True)
        }

    def __call__(self, batch: Batch) -> None:
        """Writes the pictures of a batch.

        Raises:
          ValueError: if the model has no attention, or its export was not asked for it.
          OSError: if a picture cannot be written.
        """
        contents = [content for _, content in batch]
        maps = self._predictor.attention(contents)
        seen = self._predictor.seen(contents)
        for (file, _), attention, image in zip(batch, maps, seen, strict=True):
            picture = attention_picture(image, attention)
            write_whole(str(self._paths[file]), picture)
