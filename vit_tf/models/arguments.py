"""Checks of constructor arguments and of images that all families share."""

import numbers
from collections.abc import Sequence

import keras


def as_pair(parameter: str, size: int | Sequence[int]) -> tuple[int, int]:
    """Returns (height, width) for a side or a pair of sides in pixels.

    Raises:
        ValueError: `size` is neither a positive integer nor two of them.
    """
    sides = (size, size) if isinstance(size, numbers.Integral) else tuple(size)
    if len(sides) != 2 or not all(isinstance(s, numbers.Integral) and s > 0 for s in sides):
        raise ValueError(
            f"{parameter} is a positive integer or two of them, (height, width), got {size!r}."
        )
    return int(sides[0]), int(sides[1])


def check_count(parameter: str, given: object, minimum: int = 1) -> None:
    """Raises a ValueError unless `given` is a whole number that is not too small."""
    whole = isinstance(given, numbers.Integral) and not isinstance(given, bool)
    if not whole or given < minimum:
        raise ValueError(f"{parameter} is a whole number from {minimum} up, got {given!r}.")


def check_choice(parameter: str, given: object, choices: Sequence[object]) -> None:
    """Raises a ValueError that lists the choices unless `given` is among them."""
    if given not in choices:
        raise ValueError(f"{parameter}={given!r} is not one of {', '.join(map(repr, choices))}.")


def per_stage(parameter: str, given: object, stages: int, minimum: int = 1) -> tuple[int, ...]:
    """Returns one number for each stage: a sequence of as many, or one number that all share.

    Raises:
        ValueError: The sequence has another length, or a number is not whole, or too small.
    """
    values = tuple(given) if isinstance(given, Sequence) else (given,) * stages
    if len(values) != stages:
        raise ValueError(f"{parameter} is one value for each of {stages} stages, got {given!r}.")
    for value in values:
        check_count(parameter, value, minimum)
    return values


def grid_size(image_size: tuple[int, int], patch_size: tuple[int, int]) -> tuple[int, int]:
    """Returns (rows, columns) of patches.

    Raises:
        ValueError: The patch does not divide the image; the nearest sizes that work are given.
    """
    sides = list(zip(image_size, patch_size, strict=True))
    if any(side % patch for side, patch in sides):
        smaller = tuple(max(side // patch, 1) * patch for side, patch in sides)
        larger = tuple(-(-side // patch) * patch for side, patch in sides)
        nearest = " and ".join(str(size) for size in dict.fromkeys([smaller, larger]))
        raise ValueError(
            f"patch_size={patch_size} does not divide image_size={image_size}; the nearest image "
            f"size that works: {nearest}."
        )
    return tuple(side // patch for side, patch in sides)


def check_images(images, image_size: tuple[int, int], channels: int, preprocessing: str) -> None:
    """Checks a batch of images before a model's first layer.

    Args:
        images: What was given to the model.
        image_size: The (height, width) that the model was built for.
        channels: The number of channels that it was built for.
        preprocessing: The operations that prepare images for it, to be named in the message.

    Raises:
        ValueError: The images have another shape, or are not floating-point numbers.
    """
    expected = (*image_size, channels)
    given = tuple(images.shape)
    if len(given) != 4 or given[1:] != expected:
        raise ValueError(
            f"Images of shape [batch, {', '.join(map(str, expected))}] are expected (height, "
            f"width, channels), got shape {list(given)}. Resize the images, or create the model "
            "with another image_size or channels."
        )
    dtype = keras.backend.standardize_dtype(images.dtype)
    if "float" not in dtype:
        raise ValueError(
            f"Floating-point images are expected, got {dtype}. Apply the model's own preprocessing "
            f"first: {preprocessing!r}."
        )
