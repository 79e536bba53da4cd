"""LeViT's attention: a learned bias for each head and offset, on a grid that it may sub-sample."""

import math

import keras
import numpy as np
from keras import ops

from vit_tf.layers.activations import get_activation
from vit_tf.layers.dot_product import attend
from vit_tf.layers.intermediates import NOWHERE, Intermediates
from vit_tf.layers.linear_norm import LinearNorm

# The name of the table of biases; loading resizes tables of this name.
BIASES = "attention_biases"


def offset_indices(grid_size: tuple[int, int], stride: int = 1) -> np.ndarray:
    """Which entry of a flattened table over offsets (|rows|, |columns|) belongs to each pair.

    Args:
        grid_size: (rows, columns) of the keys, and of the table.
        stride: Queries stand at every `stride`-th row and column.

    Returns:
        int32 [queries, keys].
    """
    rows, columns = grid_size
    by_row = np.abs(np.arange(0, rows, stride)[:, None] - np.arange(rows))
    by_column = np.abs(np.arange(0, columns, stride)[:, None] - np.arange(columns))
    indices = by_row[:, None, :, None] * columns + by_column[None, :, None, :]
    return indices.reshape(-1, rows * columns).astype(np.int32)


@keras.saving.register_keras_serializable(package="vit_tf")
class OffsetAttention(keras.layers.Layer):
    """Self-attention over a grid of tokens (Graham et al. 2021, "LeViT", sections 4.2.2 to 4.2.4).

    Queries, keys and values come out of one dense layer with batch norm, ordered (query, key,
    value) within each head; values are wider than keys. A bias for each head and each offset
    (|rows|, |columns|) between query and key is added to the scaled products and stands for a
    position embedding. An activation and a dense layer with batch norm, whose scale starts at
    zero, follow. Input and output [batch, rows * columns, width].

    Args:
        num_heads: Number of heads.
        key_dim: Size of a head's query and key.
        value_dim: Size of a head's value.
        grid_size: (rows, columns) of the tokens.
        activation: Name of the activation, see `layers.activations`.
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int,
        grid_size: tuple[int, int],
        activation: str = "hard_swish",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.value_dim = value_dim
        self.grid_size = tuple(grid_size)
        self.activation = activation
        self._activate = get_activation(activation)

    def build(self, input_shape):
        """Creates the dense layers with their norms, and biases [rows, columns, heads]."""
        self.query_key_value = self._linear("qkv", 2 * self.key_dim + self.value_dim, input_shape)
        self._build_end(input_shape[-1], "zeros")
        self._indices = offset_indices(self.grid_size)

    def _linear(self, name, head_dim, input_shape):
        layer = LinearNorm(self.num_heads * head_dim, dtype=self.dtype_policy, name=name)
        layer.build(input_shape)
        return layer

    def _build_end(self, width, gamma_initializer):
        self.out = LinearNorm(width, gamma_initializer, dtype=self.dtype_policy, name="out")
        self.out.build((None, None, self.num_heads * self.value_dim))
        self.biases = self.add_weight(
            name=BIASES, shape=(*self.grid_size, self.num_heads), initializer="zeros"
        )

    def call(self, tokens, training=None, intermediates: Intermediates = NOWHERE):
        """Attends; records `<name>_weights`, [batch, heads, queries, keys]."""
        seen = Intermediates(["attn_weights"])
        attended = attend(
            *self.project(tokens, training),
            self.num_heads,
            scale=1 / math.sqrt(self.key_dim),
            positions=self._add_biases,
            intermediates=seen,
        )
        intermediates.record(f"{self.name}_weights", seen.tensors["attn_weights"])
        return self.out(self._activate(attended), training=training)

    def project(self, tokens, training):
        """Queries, keys and values, each [batch, tokens, heads * size]."""
        fused = self.query_key_value(tokens, training=training)
        return self._by_part(fused, (self.key_dim, self.key_dim, self.value_dim))

    def _by_part(self, fused, sizes):
        """Takes apart what lies side by side within each head."""
        batch, length, _ = ops.shape(fused)
        fused = ops.reshape(fused, (batch, length, self.num_heads, sum(sizes)))
        parts = ops.split(fused, np.cumsum(sizes)[:-1].tolist(), axis=-1)
        widths = (self.num_heads * size for size in sizes)
        return [
            ops.reshape(part, (batch, length, width))
            for part, width in zip(parts, widths, strict=True)
        ]

    def _add_biases(self, scores):
        """Adds to [batch, heads, queries, keys] the table's biases for each pair of tokens."""
        table = ops.reshape(self.biases, (-1, self.num_heads))
        biases = ops.transpose(ops.take(table, self._indices, axis=0), (2, 0, 1))
        return scores + ops.cast(biases, scores.dtype)

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "grid_size": self.grid_size,
            "activation": self.activation,
        }
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="vit_tf")
class SubsamplingAttention(OffsetAttention):
    """`OffsetAttention` that makes a smaller grid of wider tokens ("LeViT", section 4.2.5).

    Queries come from every `stride`-th row and column alone, keys and values from all tokens.
    Output [batch, new rows * new columns, width], where a side n becomes ceil(n / stride).

    Args:
        width: Size of the output vectors.
        stride: Rows and columns from one query to the next.
        **kwargs: Arguments of `OffsetAttention`.
    """

    def __init__(self, *args, width: int, stride: int = 2, **kwargs):
        super().__init__(*args, **kwargs)
        self.width = width
        self.stride = stride

    @property
    def new_grid_size(self) -> tuple[int, int]:
        """(rows, columns) of the output."""
        return tuple(-(-side // self.stride) for side in self.grid_size)

    def build(self, input_shape):
        """Creates the dense layers with their norms, and biases [rows, columns, heads]."""
        self.query = self._linear("query", self.key_dim, input_shape)
        self.key_value = self._linear("key_value", self.key_dim + self.value_dim, input_shape)
        self._build_end(self.width, "ones")
        self._indices = offset_indices(self.grid_size, self.stride)

    def project(self, tokens, training):
        """Queries of the new grid, keys and values, each [batch, tokens, heads * size]."""
        batch, _, width = ops.shape(tokens)
        grid = ops.reshape(tokens, (batch, *self.grid_size, width))
        kept = grid[:, :: self.stride, :: self.stride]
        kept = ops.reshape(kept, (batch, math.prod(self.new_grid_size), width))
        query = self.query(kept, training=training)
        fused = self.key_value(tokens, training=training)
        return query, *self._by_part(fused, (self.key_dim, self.value_dim))

    def compute_output_shape(self, input_shape):
        """Returns (batch, new rows * new columns, width)."""
        return (input_shape[0], math.prod(self.new_grid_size), self.width)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "width": self.width, "stride": self.stride}
