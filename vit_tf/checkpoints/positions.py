"""Position tables and patch kernels of one model made to fit another."""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from vit_tf.layers.resampling import pseudo_inverse_matrix, resample, resize_matrix

Grid = tuple[int, int]


def resize_position_embedding(
    table: np.ndarray, old_grid: Grid, new_grid: Grid, method: str, slots: int = 0
) -> np.ndarray:
    """Resizes a learned position table to another grid of patches; any grid, square or not.

    Args:
        table: [1, slots + rows * columns, width].
        old_grid: (rows, columns) that the table is of.
        new_grid: (rows, columns) that are wanted.
        method: A method of `layers.resize_matrix`: "corner_aligned" is that of vision_transformer
            and big_vision, "bicubic" that of DeiT, "bicubic_antialias" that of timm,
            "bilinear_antialias" that of FlexiViT's forward pass.
        slots: Leading rows that belong to no patch (class token, ...); they are kept.

    Returns:
        float32 array [1, slots + new rows * new columns, width].

    Raises:
        ValueError: The table does not have so many rows, or the method is unknown.
    """
    rows = table.shape[1] - slots
    if rows != math.prod(old_grid):
        raise ValueError(
            f"A position table of {table.shape[1]} rows, {slots} of them before the patches, is "
            f"not that of a grid of {old_grid[0]} x {old_grid[1]} patches."
        )
    width = table.shape[2]
    matrices = (resize_matrix(o, n, method) for o, n in zip(old_grid, new_grid, strict=True))
    patches = resample(table[0, slots:].reshape(*old_grid, width), *matrices)
    patches = patches.reshape(1, -1, width).astype(np.float32)
    return np.concatenate([table[:, :slots].astype(np.float32), patches], axis=1)


def resize_pairs(table: np.ndarray, query_grid: Grid, key_grid: Grid, method: str) -> np.ndarray:
    """Resizes a table of the pairs of two grids' places, along the axes of both.

    Args:
        table: [heads, rows, columns, key rows, key columns].
        query_grid: (rows, columns) that are wanted.
        key_grid: (key rows, key columns) that are wanted.
        method: A method of `layers.resize_matrix`.

    Returns:
        float32 array [heads, *query_grid, *key_grid].
    """
    resized = np.moveaxis(table, 0, -1)
    for grid in (query_grid, key_grid):
        matrices = (resize_matrix(o, n, method) for o, n in zip(resized.shape, grid, strict=False))
        resized = np.moveaxis(resample(resized, *matrices), (0, 1), (2, 3))
    return np.moveaxis(resized, -1, 0).astype(np.float32)


def resize_patch_kernel(kernel: np.ndarray, new_size: Grid) -> np.ndarray:
    """PI-resizes a patch embedding's kernel (FlexiViT; Beyer et al. 2022, section 3.4).

    Args:
        kernel: [height, width, in, out].
        new_size: (height, width) that are wanted.

    Returns:
        float32 array [new height, new width, in, out].
    """
    matrices = (
        pseudo_inverse_matrix(o, n) for o, n in zip(kernel.shape[:2], new_size, strict=True)
    )
    return resample(kernel, *matrices).astype(np.float32)


def infer_layout(
    rows: int, readings: Sequence[int], model_grid: Grid, position_grid: Grid | None = None
) -> tuple[int, Grid]:
    """Decides which of a table's rows belong to patches, and to what grid of them.

    A grid is the model's own or square; if no reading gives either, in the proportions of the
    model's.

    Args:
        rows: Rows of the table.
        readings: How many of them may belong to tokens before the patches, the likeliest first.
        model_grid: The model's (rows, columns) of patches.
        position_grid: The table's (rows, columns), where the caller knows it.

    Returns:
        The number of rows before the patches, and the (rows, columns) of patches.

    Raises:
        ValueError: No reading gives such a grid.
    """
    for guesses in _guesses(model_grid) if position_grid is None else [[lambda n: position_grid]]:
        for slots, guess in itertools.product(readings, guesses):
            grid = guess(rows - slots) if rows > slots else None
            if grid is not None and math.prod(grid) == rows - slots:
                return slots, grid
    slots = " or ".join(str(slots) for slots in readings)
    if position_grid:
        what = f"{math.prod(position_grid)} of the given position_grid={position_grid}"
    else:
        what = f"a square grid or the proportions of {model_grid[0]} x {model_grid[1]} patches"
    raise ValueError(
        f"a position table of {rows} rows, {slots} of them before the patches, does not fit "
        f"{what}; tell the grid of the table with position_grid=(rows, columns)"
    )


def _guesses(model_grid):
    """Functions of the number of patches; those of the first list are tried for all readings."""

    def square(patches):
        return (math.isqrt(patches),) * 2

    def proportional(patches):
        rows = round(math.sqrt(patches * model_grid[0] / model_grid[1]))
        columns = patches // rows if rows else 0
        return (rows, columns) if rows * model_grid[1] == columns * model_grid[0] else None

    return [[lambda patches: model_grid, square], [proportional]]
