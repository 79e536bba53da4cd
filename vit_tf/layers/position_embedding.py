"""Position embeddings that are added to the sequence of tokens."""

import keras
import numpy as np
from keras import ops

from vit_tf.layers.resampling import resize_matrix


def sincos2d(grid_size: tuple[int, int], width: int, temperature: float = 10_000.0) -> np.ndarray:
    """Fixed two-dimensional sine/cosine table, as in MoCo v3 and big_vision.

    Args:
        grid_size: (rows, columns) of the patch grid.
        width: Size of a token, a multiple of four: a quarter each for sin x, cos x, sin y, cos y.
        temperature: The longest wavelength in units of 2 pi patches.

    Returns:
        float32 array [rows * columns, width] in row-major order.

    Raises:
        ValueError: `width` is not a multiple of four.
    """
    if width % 4:
        raise ValueError(
            f"position_embedding='sincos2d' needs a width that is a multiple of 4, got {width}; "
            f"the nearest are {width // 4 * 4} and {width // 4 * 4 + 4}."
        )
    rows, columns = grid_size
    quarter = width // 4
    # Width 4 has a single frequency; the division by quarter - 1 is then 0 / 1.
    frequency = temperature ** -(np.arange(quarter) / max(quarter - 1, 1))
    y, x = np.mgrid[:rows, :columns]
    x_angle = x.reshape(-1, 1) * frequency
    y_angle = y.reshape(-1, 1) * frequency
    parts = [np.sin(x_angle), np.cos(x_angle), np.sin(y_angle), np.cos(y_angle)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def sincos1d(tokens: int, width: int) -> np.ndarray:
    """Fixed one-dimensional sine/cosine table (Vaswani et al. 2017, section 3.5).

    Column i of row p is the sine (even i) or cosine (odd i) of p / 10000^(2 floor(i / 2) / width).

    Args:
        tokens: Length of the sequence.
        width: Size of a token.

    Returns:
        float32 array [tokens, width].
    """
    columns = np.arange(width)
    angles = np.arange(tokens)[:, None] / 10_000.0 ** (2 * (columns // 2) / width)
    return np.where(columns % 2, np.cos(angles), np.sin(angles)).astype(np.float32)


@keras.saving.register_keras_serializable(package="vit_tf")
class LearnedPositionEmbedding(keras.layers.Layer):
    """Adds a learned table to the tokens; input and output are [batch, tokens, width].

    The table [1, tokens, width] covers whatever sequence the layer is built for, with the class
    token's row first where the sequence has one (vision_transformer) or patches only (big_vision).

    Args:
        stddev: Standard deviation of the initial table: 0.02 in vision_transformer,
            1 / sqrt(width) in big_vision.
    """

    def __init__(self, stddev: float = 0.02, **kwargs):
        super().__init__(**kwargs)
        self.stddev = stddev

    def build(self, input_shape):
        """Creates the table [1, tokens, width]."""
        self.table = self.add_weight(
            name="table",
            shape=(1, *input_shape[1:]),
            initializer=keras.initializers.RandomNormal(stddev=self.stddev),
        )

    def call(self, tokens):
        """Adds the table to [batch, tokens, width]."""
        return tokens + self.table

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "stddev": self.stddev}


@keras.saving.register_keras_serializable(package="vit_tf")
class GridPositionEmbedding(keras.layers.Layer):
    """Adds a learned table of one grid, resized to the grid of each call, as in FlexiViT.

    The resize is linear with half-pixel centres, antialiased when shrinking, in float32. Input and
    output are [batch, tokens, width].

    Args:
        grid_size: (rows, columns) of the stored table.
        stddev: Standard deviation of the initial table.
    """

    def __init__(self, grid_size: tuple[int, int], stddev: float = 0.02, **kwargs):
        super().__init__(**kwargs)
        self.grid_size = tuple(grid_size)
        self.stddev = stddev

    def build(self, input_shape):
        """Creates the table [1, rows * columns, width]."""
        self.table = self.add_weight(
            name="table",
            shape=(1, self.grid_size[0] * self.grid_size[1], input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=self.stddev),
            autocast=False,  # half precision comes after the resize
        )

    def resized_table(self, grid_size: tuple[int, int]):
        """The table for a grid of (rows, columns): [1, rows * columns, width]."""
        table = ops.convert_to_tensor(self.table)
        if tuple(grid_size) == self.grid_size:
            return table
        row_matrix, column_matrix = (
            ops.convert_to_tensor(resize_matrix(old, new, "bilinear_antialias"), table.dtype)
            for old, new in zip(self.grid_size, grid_size, strict=True)
        )
        grid = ops.reshape(table, (*self.grid_size, -1))
        grid = ops.einsum("Rr,rcw->Rcw", row_matrix, grid)
        grid = ops.einsum("Cc,Rcw->RCw", column_matrix, grid)
        return ops.reshape(grid, (1, grid_size[0] * grid_size[1], -1))

    def call(self, tokens, grid_size: tuple[int, int] | None = None):
        """Adds positions of a grid of (rows, columns), the stored one unless given."""
        return tokens + ops.cast(self.resized_table(grid_size or self.grid_size), tokens.dtype)

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "grid_size": self.grid_size, "stddev": self.stddev}


@keras.saving.register_keras_serializable(package="vit_tf")
class SinCos2DPositionEmbedding(keras.layers.Layer):
    """Adds the fixed table of `sincos2d`; it is computed, not stored as a weight.

    Input and output are [batch, tokens, width] with width a multiple of four. Tokens in front of
    the grid (a class token) get a row of zeros, that is no position.

    Args:
        grid_size: (rows, columns) of the patch grid.
    """

    def __init__(self, grid_size: tuple[int, int], **kwargs):
        super().__init__(**kwargs)
        self.grid_size = tuple(grid_size)

    def build(self, input_shape):
        """Computes the table [1, tokens, width]."""
        _, tokens, width = input_shape
        table = sincos2d(self.grid_size, width)
        slots = tokens - len(table)
        if slots < 0:
            raise ValueError(f"A grid of {self.grid_size} patches does not fit {tokens} tokens.")
        self._table = np.pad(table, ((slots, 0), (0, 0)))[None]

    def call(self, tokens):
        """Adds the table to [batch, tokens, width]."""
        return tokens + ops.convert_to_tensor(self._table, dtype=tokens.dtype)

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "grid_size": self.grid_size}


@keras.saving.register_keras_serializable(package="vit_tf")
class SinCos1DPositionEmbedding(keras.layers.Layer):
    """Adds the table of `sincos1d` along the sequence, a class token's place included.

    The table [1, tokens, width] is a weight that is not trained: files of
    SHI-Labs/Compact-Transformers hold it, and one of another grid is resized as learned ones are.
    Input and output are [batch, tokens, width].
    """

    def build(self, input_shape):
        """Creates the table [1, tokens, width]."""
        self.table = self.add_weight(
            name="table",
            shape=(1, *input_shape[1:]),
            initializer=lambda shape, dtype: ops.cast(sincos1d(*shape[1:])[None], dtype),
            trainable=False,
        )

    def call(self, tokens):
        """Adds the table to [batch, tokens, width]."""
        return tokens + self.table

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape
