"""What a picture of models is, and what it is drawn of."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
from matplotlib.figure import Figure

from vit_tf.analysis.attention_maps import MAPS, attention_maps, pools_by_attention
from vit_tf.analysis.in_batches import Progress


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model that is looked into, with images for it.

    Args:
      name: what pictures call it.
      model: the model, with its weights.
      images: float [images, height, width, channels], preprocessed for the model; may be empty.
      seen: the same as uint8 [images, height, width, 3].
      titles: of the images, such as file names.
      shown: how many of the images, from the first on, appear in pictures that show images; the
        others count where something is averaged.
      batch_size: images at a time.
      progress: see `in_batches`.
    """

    name: str
    model: keras.Model
    images: np.ndarray
    seen: np.ndarray
    titles: Sequence[str] = ()
    shown: int = 4
    batch_size: int = 8
    progress: Progress = iter

    def facts(self) -> dict[str, str]:
        """What the model is, by title."""
        model = self.model
        grid = getattr(model, "grid_size", None)
        depth, heads = getattr(model, "depth", None), getattr(model, "num_heads", None)
        return {
            "model": self.name,
            "parameters": f"{model.card.parameters:,}",
            "input": " x ".join(map(str, model.image_size)),
            "patches": " x ".join(map(str, grid)) if grid else "-",
            "layers": str(depth or "-"),
            "heads": str(heads or "-"),
        }

    @functools.cached_property
    def attention(self) -> dict[str, np.ndarray]:
        """All attention maps of the images that are shown, see `attention_maps`."""
        kinds = [k for k in MAPS if k != "pool" or self.pools_by_attention]
        images = self.images[: self.shown]
        return attention_maps(self.model, images, kinds, self.batch_size, self.progress)

    @property
    def pools_by_attention(self) -> bool:
        """Whether `attention` has a map of the pooling."""
        return pools_by_attention(self.model)


@dataclasses.dataclass(frozen=True)
class Picture:
    """How a picture is made and read.

    Args:
      title: what a page calls it.
      text: what it shows and how it is read; blank lines part paragraphs.
      draw: subjects, one at least -> figures by caption: one, its caption empty, that shows all
        models side by side, or one a model, and pairs of models behind them.
      lacks: why it cannot be made of a model, such as "has no attention"; empty if it can.
      needs_images: how many images at least; 0 if it is about weights alone.
      unusual: whether few models have what it shows, so that its absence is not worth a word.
    """

    title: str
    text: str
    draw: Callable[[Sequence[Subject]], Mapping[str, Figure]]
    lacks: Callable[[keras.Model], str] = lambda model: ""
    needs_images: int = 1
    unusual: bool = False


def caption(subject: Subject, subjects: Sequence[Subject]) -> str:
    """The caption of a model's own figure: none where there is no other model."""
    return subject.name if len(subjects) > 1 else ""
