"""LeViT's residual blocks, and the step between two stages."""

import keras

from vit_tf.layers.activations import get_activation
from vit_tf.layers.intermediates import NOWHERE, Intermediates
from vit_tf.layers.linear_norm import LinearNorm
from vit_tf.layers.offset_attention import OffsetAttention, SubsamplingAttention
from vit_tf.layers.stochastic_depth import StochasticDepth


@keras.saving.register_keras_serializable(package="vit_tf")
class NormedMLP(keras.layers.Layer):
    """Dense, batch norm, activation, dense, batch norm; input and output [..., width].

    The last norm's scale starts at zero, so that a fresh residual branch adds nothing.

    Args:
        mlp_dim: Size of the hidden layer.
        activation: Name of the activation, see `layers.activations`.
    """

    def __init__(self, mlp_dim: int, activation: str = "hard_swish", **kwargs):
        super().__init__(**kwargs)
        self.mlp_dim = mlp_dim
        self.activation = activation
        self._activate = get_activation(activation)

    def build(self, input_shape):
        """Creates kernels [width, mlp_dim] and [mlp_dim, width] and their norms."""
        policy = self.dtype_policy
        self.dense_in = LinearNorm(self.mlp_dim, dtype=policy, name="dense_in")
        self.dense_in.build(input_shape)
        self.dense_out = LinearNorm(input_shape[-1], "zeros", dtype=policy, name="dense_out")
        self.dense_out.build((*input_shape[:-1], self.mlp_dim))

    def call(self, inputs, training=None):
        """Maps [..., width] to [..., width]."""
        hidden = self._activate(self.dense_in(inputs, training=training))
        return self.dense_out(hidden, training=training)

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "mlp_dim": self.mlp_dim,
            "activation": self.activation,
        }


@keras.saving.register_keras_serializable(package="vit_tf")
class LeViTStage(keras.layers.Layer):
    """Residual attention and MLP by turns (Graham et al. 2021, "LeViT", section 4.2).

    There is no other norm than those of the linear layers. Input and output are
    [batch, rows * columns, width].

    Args:
        depth: Number of attention layers, each with an MLP behind it.
        num_heads: Attention heads.
        key_dim: Size of a head's query and key.
        value_dim: Size of a head's value.
        mlp_dim: Size of the MLPs' hidden layer; 0 leaves them out.
        grid_size: (rows, columns) of the tokens.
        activation: Name of the activation, see `layers.activations`.
        stochastic_depth: Rate of dropping each branch, per example.
    """

    def __init__(
        self,
        depth: int,
        num_heads: int,
        key_dim: int,
        value_dim: int,
        mlp_dim: int,
        grid_size: tuple[int, int],
        activation: str = "hard_swish",
        stochastic_depth: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.depth = depth
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.value_dim = value_dim
        self.mlp_dim = mlp_dim
        self.grid_size = tuple(grid_size)
        self.activation = activation
        self.stochastic_depth = stochastic_depth
        policy = self.dtype_policy
        sizes = (num_heads, key_dim, value_dim, self.grid_size, activation)
        self.branches = []
        for index in range(depth):
            name = f"attn{index:02d}"
            self.branches.append(OffsetAttention(*sizes, dtype=policy, name=name))
            if mlp_dim:
                name = f"mlp{index:02d}"
                self.branches.append(NormedMLP(mlp_dim, activation, dtype=policy, name=name))
        self.drops = [StochasticDepth(stochastic_depth, dtype=policy) for _ in self.branches]

    def build(self, input_shape):
        """Creates the weights of all branches."""
        for branch in self.branches:
            branch.build(input_shape)

    def call(self, tokens, training=None, intermediates: Intermediates = NOWHERE):
        """Runs the stage.

        Records `attn<nn>_weights` [batch, heads, tokens, tokens], and of every branch
        `<name>/branch` and, with it added, `<name>/out`.
        """
        for branch, drop in zip(self.branches, self.drops, strict=True):
            tokens = _add_branch(tokens, branch, drop, training, intermediates)
        return tokens

    @property
    def intermediate_names(self) -> list[str]:
        """What `call` can record, in the order of computation."""
        return [name for branch in self.branches for name in _recorded(branch)]

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        names = ("depth", "num_heads", "key_dim", "value_dim", "mlp_dim", "grid_size")
        names += ("activation", "stochastic_depth")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="vit_tf")
class LeViTDownSampling(keras.layers.Layer):
    """The step between two stages: attention to a smaller grid, then a residual MLP.

    Input [batch, rows * columns, width before], output [batch, new rows * new columns, width], see
    `SubsamplingAttention`.

    Args:
        width: Size of the output vectors.
        num_heads: Attention heads.
        key_dim: Size of a head's query and key.
        value_dim: Size of a head's value.
        mlp_dim: Size of the MLP's hidden layer; 0 leaves it out.
        grid_size: (rows, columns) of the input.
        stride: Rows and columns from one token that stays to the next.
        activation: Name of the activation, see `layers.activations`.
        stochastic_depth: Rate of dropping the MLP, per example.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        key_dim: int,
        value_dim: int,
        mlp_dim: int,
        grid_size: tuple[int, int],
        stride: int = 2,
        activation: str = "hard_swish",
        stochastic_depth: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.width = width
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.value_dim = value_dim
        self.mlp_dim = mlp_dim
        self.grid_size = tuple(grid_size)
        self.stride = stride
        self.activation = activation
        self.stochastic_depth = stochastic_depth
        policy = self.dtype_policy
        self.attention = SubsamplingAttention(
            num_heads,
            key_dim,
            value_dim,
            self.grid_size,
            activation,
            width=width,
            stride=stride,
            dtype=policy,
            name="attn",
        )
        self.mlp = NormedMLP(mlp_dim, activation, dtype=policy, name="mlp") if mlp_dim else None
        self.drop = StochasticDepth(stochastic_depth, dtype=policy)

    @property
    def new_grid_size(self) -> tuple[int, int]:
        """(rows, columns) of the output."""
        return self.attention.new_grid_size

    def build(self, input_shape):
        """Creates the weights of attention and MLP."""
        self.attention.build(input_shape)
        if self.mlp is not None:
            self.mlp.build(self.compute_output_shape(input_shape))

    def call(self, tokens, training=None, intermediates: Intermediates = NOWHERE):
        """Runs the step; records `attn_weights`, `attn/out`, `mlp/branch` and `mlp/out`."""
        tokens = self.attention(tokens, training=training, intermediates=intermediates)
        intermediates.record("attn/out", tokens)
        if self.mlp is None:
            return tokens
        return _add_branch(tokens, self.mlp, self.drop, training, intermediates)

    @property
    def intermediate_names(self) -> list[str]:
        """What `call` can record, in the order of computation."""
        return ["attn_weights", "attn/out"] + ([] if self.mlp is None else _recorded(self.mlp))

    def compute_output_shape(self, input_shape):
        """Returns (batch, new rows * new columns, width)."""
        return self.attention.compute_output_shape(input_shape)

    def get_config(self):
        """Returns the constructor's arguments."""
        names = ("width", "num_heads", "key_dim", "value_dim", "mlp_dim", "grid_size", "stride")
        names += ("activation", "stochastic_depth")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _add_branch(tokens, branch, drop, training, intermediates):
    attends = isinstance(branch, OffsetAttention)
    more = {"intermediates": intermediates} if attends else {}
    change = branch(tokens, training=training, **more)
    intermediates.record(f"{branch.name}/branch", change)
    tokens = tokens + drop(change, training=training)
    intermediates.record(f"{branch.name}/out", tokens)
    return tokens


def _recorded(branch):
    weights = [f"{branch.name}_weights"] if isinstance(branch, OffsetAttention) else []
    return [*weights, f"{branch.name}/branch", f"{branch.name}/out"]
