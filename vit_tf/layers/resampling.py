"""Resizing of grids and of patch kernels as matrices, one for each axis.

A grid [rows, columns, ...] is resized by a matrix [new, old] along its rows and another one along
its columns. Sizes are known beforehand, so the matrices are constants, the same on every backend.
"""

from collections.abc import Callable

import numpy as np

from vit_tf.suggestions import did_you_mean


def resize_matrix(old: int, new: int, method: str) -> np.ndarray:
    """Weights with which `new` points of one axis mix its `old` ones.

    Args:
        old: Points that there are.
        new: Points that are wanted.
        method: How it is done:
            "corner_aligned": linear between points, the outermost stay where they are
            (`scipy.ndimage.zoom` of order 1, as in vision_transformer and big_vision);
            "bilinear": half-pixel centres, no antialiasing (`tf.image.resize`);
            "bilinear_antialias": the same with a filter that widens when shrinking
            (`jax.image.resize`, FlexiViT's forward pass);
            "bicubic": half-pixel centres, a = -0.75, no antialiasing (torch, DeiT, Hugging Face);
            "bicubic_antialias": a = -0.5 and a filter that widens when shrinking (Pillow, timm).

    Returns:
        float64 array [new, old]; every row sums to one.

    Raises:
        ValueError: No method has this name, or a size is not positive.
    """
    if method not in _METHODS:
        hint = did_you_mean(method, _METHODS, count=2, cutoff=0.4)
        raise ValueError(f"Unknown resize method {method!r}.{hint} Known: {', '.join(_METHODS)}.")
    if old < 1 or new < 1:
        raise ValueError(f"Sizes to resize between must be positive, got {old} and {new}.")
    return _METHODS[method](old, new)


def pseudo_inverse_matrix(old: int, new: int) -> np.ndarray:
    """One axis of FlexiViT's PI-resize (Beyer et al. 2022, section 3.4).

    A patch kernel K [old, old, ...] becomes P K P' with this P, so that the resized kernel on a
    bilinearly resized patch gives what K gave on the patch itself, exactly when enlarging and in
    the sense of least squares when shrinking. The two-dimensional resize is separable, and so is
    its pseudo-inverse.

    Args:
        old: Side of the stored kernel.
        new: Side of the wanted kernel.

    Returns:
        float64 array [new, old].
    """
    return np.linalg.pinv(resize_matrix(old, new, "bilinear").T)


def resample(array, row_matrix: np.ndarray, column_matrix: np.ndarray) -> np.ndarray:
    """Applies matrices [new, old] to the two leading axes of [rows, columns, ...], in float64."""
    array = np.asarray(array, np.float64)
    return np.einsum("Rr,Cc,rc...->RC...", row_matrix, column_matrix, array, optimize=True)


def _corner_aligned(old, new):
    places = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0.0)
    return _interpolation(places, old, _triangle, radius=1)


def _half_pixel(kernel: Callable, radius: int):
    def matrix(old, new):
        places = (np.arange(new) + 0.5) * (old / new) - 0.5
        return _interpolation(places, old, kernel, radius)

    return matrix


def _antialiased(kernel: Callable):
    def matrix(old, new):
        places = (np.arange(new)[:, None] + 0.5) * (old / new) - 0.5
        widening = max(old / new, 1.0)
        weights = kernel((np.arange(old) - places) / widening)
        return weights / weights.sum(axis=1, keepdims=True)

    return matrix


def _interpolation(places, old, kernel, radius):
    """Weights of the 2 * radius neighbours; what lies beyond the border repeats the border."""
    matrix = np.zeros((len(places), old))
    for row, place in enumerate(places):
        first = int(np.floor(place)) - radius + 1
        for neighbour in range(first, first + 2 * radius):
            matrix[row, np.clip(neighbour, 0, old - 1)] += kernel(neighbour - place)
    return matrix


def _triangle(distance):
    return np.maximum(1 - np.abs(distance), 0)


def _cubic(a: float):
    """Keys' cubic convolution kernel (1981)."""

    def kernel(distance):
        x = np.abs(distance)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = a * (((x - 5) * x + 8) * x - 4)
        return np.where(x <= 1, near, np.where(x < 2, far, 0.0))

    return kernel


_METHODS: dict[str, Callable[[int, int], np.ndarray]] = {
    "corner_aligned": _corner_aligned,
    "bilinear": _half_pixel(_triangle, radius=1),
    "bilinear_antialias": _antialiased(_triangle),
    "bicubic": _half_pixel(_cubic(-0.75), radius=2),
    "bicubic_antialias": _antialiased(_cubic(-0.5)),
}
