"""A learned number for every pair of a query's and a key's place, added to attention scores."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="vit_tf")
class PairPositions(keras.layers.Layer):
    """Adds a full table of positions to scores (Guo et al. 2021, "CMT", equation 3).

    Input and output are [batch, heads, queries, keys], products of queries with keys before the
    softmax, both in row-major order of their grids.

    Args:
        query_grid: (rows, columns) of the queries.
        key_grid: (rows, columns) of the keys.
        stddev: Standard deviation of the initial table; 1 in the reference.
    """

    def __init__(
        self,
        query_grid: tuple[int, int],
        key_grid: tuple[int, int],
        stddev: float = 1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.query_grid = tuple(query_grid)
        self.key_grid = tuple(key_grid)
        self.stddev = stddev

    def build(self, input_shape):
        """Creates the table [heads, rows, columns, key rows, key columns]."""
        self.table = self.add_weight(
            name="table",
            shape=(input_shape[1], *self.query_grid, *self.key_grid),
            initializer=keras.initializers.RandomNormal(stddev=self.stddev),
        )

    def call(self, scores):
        """Adds the table to [batch, heads, queries, keys]."""
        pairs = (-1, math.prod(self.query_grid), math.prod(self.key_grid))
        return scores + ops.reshape(self.table, pairs)

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {
            "query_grid": self.query_grid,
            "key_grid": self.key_grid,
            "stddev": self.stddev,
        }
        return {**super().get_config(), **config}
