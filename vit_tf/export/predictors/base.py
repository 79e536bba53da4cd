"""What every predictor does, whatever runs the model: a SavedModel, a Keras model or a server."""

import abc
import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The likeliest classes of an image.

    Args:
      ids: of the classes, the likeliest first.
      names: of the same classes.
      probabilities: of the same classes, 0 to 1.
      error: why the image could not be classified; the rest is empty then.
    """

    ids: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    error: str | None = None


class Predictor(abc.ABC):
    """Classifies encoded images. A subclass only has to say how a signature is called.

    The signatures are those of `vit_tf.export.serving_module.ServingModule`. Images are encoded
    bytes (JPEG, PNG, ...). One that cannot be read never fails the others: its `Prediction` has an
    `error`, and elsewhere it is None.
    """

    @abc.abstractmethod
    def outputs(self, signature: str, images: Sequence[bytes]) -> Mapping[str, np.ndarray]:
        """Calls a signature that takes `image_bytes`.

        Args:
          signature: `"serving_default"`, `"embed"`, `"attention"` or `"preprocess"`.
          images: encoded, at least one.

        Returns:
          Its outputs by name, a row an image, strings as bytes. `error` is `b""` where the image
          was read.

        Raises:
          ValueError: if the model has no such signature.
        """

    @abc.abstractmethod
    def describe(self) -> str:
        """One line for a person: what is run, and where."""

    def facts(self) -> dict[str, str]:
        """What the model's card says, by title; empty if there is none."""
        return {}

    def classify(self, images: Sequence[bytes]) -> list[Prediction]:
        """The likeliest classes of each image."""
        if not images:
            return []
        outputs = self.outputs("serving_default", images)
        columns = zip(
            outputs["top_ids"].tolist(),
            outputs["top_names"].tolist(),
            outputs["top_probabilities"].tolist(),
            outputs["error"].tolist(),
            strict=True,
        )
        return [
            Prediction(error=error.decode())
            if error
            else Prediction(tuple(ids), tuple(name.decode() for name in names), tuple(values))
            for ids, names, values, error in columns
        ]

    def attention(self, images: Sequence[bytes]) -> list[np.ndarray | None]:
        """Attention rollout of each image, float32 [grid height, grid width].

        Raises:
          ValueError: if the model has no attention, or its export was not asked for it.
        """
        return self._rows("attention", "rollout", images)

    def embed(self, images: Sequence[bytes]) -> list[np.ndarray | None]:
        """Feature vector of each image, what enters the model's head, float32 [width].

        Raises:
          ValueError: if the model has none.
        """
        return self._rows("embed", "pre_logits", images)

    def seen(self, images: Sequence[bytes]) -> list[np.ndarray | None]:
        """Each image as the model sees it, resized and cropped: uint8 [height, width, 3].

        Raises:
          ValueError: if the model does not give out its preprocessing.
        """
        views = self._rows("preprocess", "images", images)
        return [None if view is None else self._as_pixels(view) for view in views]

    def _rows(self, signature: str, name: str, images: Sequence[bytes]) -> list[np.ndarray | None]:
        if not images:
            return []
        outputs = self.outputs(signature, images)
        if name not in outputs:
            raise ValueError(
                f"the signature {signature!r} of {self.describe()} gives no {name!r}, only "
                f"{', '.join(sorted(outputs))}"
            )
        rows = zip(outputs[name], outputs["error"].tolist(), strict=True)
        return [None if error else row for row, error in rows]

    def _as_pixels(self, view: np.ndarray) -> np.ndarray:
        """A preprocessed image [height, width, channels] as uint8 [height, width, 3]."""
        black, white = self._value_range
        pixels = 255 * (view - black) / np.where(white == black, 1, white - black)
        pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        return np.broadcast_to(pixels, (*pixels.shape[:2], 3))

    @functools.cached_property
    def _value_range(self) -> tuple[np.ndarray, np.ndarray]:
        """What preprocessing makes of black and of white, [channels] each.

        So the values of any model (0 to 1, -1 to 1, mean and standard deviation) become pixels
        again without knowing its ops.
        """
        outputs = self.outputs("preprocess", [plain_png(0), plain_png(255)])["images"]
        black, white = outputs.mean(axis=(1, 2))
        return black, white


def plain_png(value: int) -> bytes:
    """An encoded image of 64 x 64 pixels of one grey."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (value,) * 3).save(file, "PNG")
    return file.getvalue()
