"""Which tokens to keep: DynamicViT's prediction module, and decisions that gradients pass."""

import keras
from keras import ops

from vit_tf.layers.activations import get_activation
from vit_tf.layers.initialization import get_initializer
from vit_tf.layers.kernels import LayerNorm

_NORM_EPSILON = 1e-5  # torch's default; the reference's blocks have 1e-6


@keras.saving.register_keras_serializable(package="vit_tf")
class TokenPredictor(keras.layers.Layer):
    """Log-probabilities of keeping and dropping each token (Rao et al. 2021, section 3.2).

    LayerNorm, a dense layer and GELU describe every token. The second half of the channels gives
    way to its mean over the tokens that are still kept; an MLP of width / 2 and width / 4 follows.
    Input [batch, tokens, width], output [batch, tokens, 2].

    Args:
        initialization: How the kernels start, see `layers.initialization`.

    Raises:
        ValueError: At build, if the width is less than 4.
    """

    def __init__(self, initialization: str = "deit", **kwargs):
        super().__init__(**kwargs)
        self.initialization = initialization
        self.norm = LayerNorm(epsilon=_NORM_EPSILON, dtype=self.dtype_policy, name="norm")
        self._activate = get_activation("gelu")

    def build(self, input_shape):
        """Creates the LayerNorm and four dense layers, of width, width // 2, width // 4 and 2."""
        width = input_shape[-1]
        if width < 4:
            raise ValueError(f"A token predictor needs a width of 4 at least, got {width}.")
        self.norm.build(input_shape)
        self.dense_in = self._dense(width, "dense_in")
        sizes = {"dense_half": width // 2, "dense_quarter": width // 4, "dense_out": 2}
        self.dense_outs = [self._dense(size, name) for name, size in sizes.items()]
        inputs = width
        for dense in (self.dense_in, *self.dense_outs):
            dense.build((*input_shape[:-1], inputs))
            inputs = dense.units

    def _dense(self, units, name):
        return keras.layers.Dense(
            units,
            kernel_initializer=get_initializer(self.initialization, "mlp_kernel"),
            dtype=self.dtype_policy,
            name=name,
        )

    def call(self, tokens, keep=None):
        """Scores tokens.

        Args:
            tokens: [batch, tokens, width].
            keep: [batch, tokens], 1 for tokens that the mean is over, 0 for the others; None for
                all. Where none is kept, the mean is zero.

        Returns:
            [batch, tokens, 2], log-probabilities of (keep, drop).
        """
        features = self._activate(self.dense_in(self.norm(tokens)))
        half = features.shape[-1] // 2
        local, others = features[..., :half], features[..., half:]
        features = ops.concatenate(
            [local, ops.broadcast_to(_mean(others, keep), ops.shape(others))], axis=-1
        )
        *hidden, out = self.dense_outs
        for dense in hidden:
            features = self._activate(dense(features))
        scores = out(features)
        wide = keras.backend.result_type(scores.dtype, "float32")
        return ops.cast(ops.log_softmax(ops.cast(scores, wide), axis=-1), scores.dtype)

    def compute_output_shape(self, input_shape):
        """Returns (batch, tokens, 2)."""
        return (*input_shape[:-1], 2)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "initialization": self.initialization}


def gumbel_noise(shape, dtype: str, seed: keras.random.SeedGenerator):
    """Draws from the standard Gumbel distribution."""
    uniform = keras.random.uniform(shape, dtype=dtype, seed=seed)
    # A uniform number may be 0, and the logarithm of its logarithm minus infinity.
    return -ops.log(-ops.log1p(-uniform) + keras.config.epsilon())


def straight_through_decision(log_probs, noise):
    """Decides between two choices (Gumbel-softmax, Jang et al. 2017, section 2.2).

    Forward a decision is 0 or 1; backward it has the gradient of the softmax of log-probabilities
    plus noise, at temperature 1.

    Args:
        log_probs: [..., 2].
        noise: Gumbel noise of the same shape.

    Returns:
        [...], 1 for the first choice.
    """
    soft = ops.softmax(log_probs + noise, axis=-1)[..., 0]
    hard = ops.cast(soft >= 0.5, soft.dtype)
    return hard + (soft - ops.stop_gradient(soft))


def _mean(features, keep):
    """Mean over kept tokens, [batch, 1, channels]."""
    if keep is None:
        return ops.mean(features, axis=1, keepdims=True)
    keep = ops.cast(keep, features.dtype)[..., None]
    total = ops.sum(features * keep, axis=1, keepdims=True)
    return total / ops.maximum(ops.sum(keep, axis=1, keepdims=True), 1)
