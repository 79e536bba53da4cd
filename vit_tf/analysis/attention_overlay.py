"""What a Transformer looked at, over the image that it saw."""

import io

import matplotlib
import numpy as np
from PIL import Image

_COLORS = "inferno"  # perceptually uniform: equal steps of attention are equal steps to the eye
_LUMA = np.float32([0.299, 0.587, 0.114])  # brightness of red, green and blue (ITU-R BT.601)
_SHORT_SIDE = 320  # pixels; smaller images are enlarged to it, or nobody could read them


def attention_overlay(
    image: np.ndarray, attention: np.ndarray, strength: float = 0.6
) -> np.ndarray:
    """Lays an attention map over an image, brightest where there is most attention.

    The stronger the map, the more the image gives up its own colours and keeps its brightness
    alone, so that colour means attention.

    Args:
      image: uint8 [height, width, 3], as the model saw it.
      attention: [rows, columns] of patches, in any range; enlarged bilinearly. Its smallest value
        becomes 0, its largest 1; a map that is the same everywhere becomes 0.
      strength: of the colours: 0 is the image itself, 1 the map alone.

    Returns:
      uint8 [height, width, 3].

    Raises:
      ValueError: if shapes or `strength` are others.
    """
    if image.ndim != 3 or image.shape[-1] != 3 or attention.ndim != 2:
        raise ValueError(
            "an overlay takes an image [height, width, 3] and a map [rows, columns]; given "
            f"{image.shape} and {attention.shape}"
        )
    if not 0 <= strength <= 1:
        raise ValueError(f"an overlay's strength is between 0 and 1; given {strength}")
    heat = _enlarged(attention, image.shape[:2])
    colors = 255 * matplotlib.colormaps[_COLORS](heat)[..., :3]
    gray = image @ _LUMA
    faded = (1 - strength) * image + strength * gray[..., None]
    mixed = (1 - strength) * faded + strength * colors
    return np.rint(mixed).astype(np.uint8)


def attention_picture(image: np.ndarray, attention: np.ndarray) -> bytes:
    """An image and beside it the same image with its attention map laid over.

    Args:
      image: uint8 [height, width, 3], as the model saw it; small ones are enlarged.
      attention: see `attention_overlay`.

    Returns:
      A PNG file.
    """
    image = enlarged_to_read(image)
    gap = np.full((image.shape[0], max(4, image.shape[1] // 40), 3), 255, np.uint8)
    sheet = np.concatenate([image, gap, attention_overlay(image, attention)], axis=1)
    png = io.BytesIO()
    Image.fromarray(sheet).save(png, "PNG")
    return png.getvalue()


def enlarged_to_read(image: np.ndarray) -> np.ndarray:
    """The image, times the smallest whole number that makes its short side 320 pixels or more."""
    times = -(-_SHORT_SIDE // min(image.shape[:2]))
    height, width = image.shape[:2]
    return np.asarray(Image.fromarray(image).resize((width * times, height * times), Image.BICUBIC))


def _enlarged(attention: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The map as values 0 to 1, [height, width]."""
    low, high = float(attention.min()), float(attention.max())
    values = (attention - low) / (high - low if high > low else 1.0)
    height, width = size
    heat = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.BILINEAR)
    return np.asarray(heat)
