"""Dense layers with a batch norm behind or before them."""

import keras
from keras import ops

from vit_tf.layers.batch_norm import batch_norm
from vit_tf.layers.initialization import get_initializer
from vit_tf.layers.products import linear, rows


@keras.saving.register_keras_serializable(package="vit_tf")
class LinearNorm(keras.layers.Layer):
    """A dense layer without bias, then batch norm over all else (Graham et al. 2021, "LeViT").

    Input [..., inputs], output [..., features].

    Args:
        features: Size of the output vectors.
        gamma_initializer: How the norm's scale starts; "zeros" at the end of a residual branch.
    """

    def __init__(self, features: int, gamma_initializer: str = "ones", **kwargs):
        super().__init__(**kwargs)
        self.features = features
        self.gamma_initializer = gamma_initializer
        self.linear = keras.layers.Dense(
            features,
            use_bias=False,
            kernel_initializer=get_initializer("deit", "patch_kernel"),  # torch's default
            dtype=self.dtype_policy,
            name="linear",
        )
        self.norm = batch_norm(
            gamma_initializer=gamma_initializer, dtype=self.dtype_policy, name="norm"
        ).follows(self.linear)

    def build(self, input_shape):
        """Creates the kernel [inputs, features] and the norm's weights."""
        self.linear.build(input_shape)
        self.norm.build((*input_shape[:-1], self.features))

    def call(self, inputs, training=None):
        """Maps [..., inputs] to [..., features]."""
        outputs = self.norm(linear(self.linear, rows(inputs)), training=training)
        return ops.reshape(outputs, (*ops.shape(inputs)[:-1], self.features))

    def compute_output_shape(self, input_shape):
        """Returns (..., features)."""
        return (*input_shape[:-1], self.features)

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {"features": self.features, "gamma_initializer": self.gamma_initializer}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="vit_tf")
class NormLinear(keras.layers.Dense):
    """Batch norm, then a dense layer with a bias; [batch, inputs] to [batch, units].

    Args:
        units: Size of the output.
        **kwargs: Arguments of `keras.layers.Dense`.
    """

    def __init__(self, units: int, **kwargs):
        super().__init__(units, **kwargs)
        self.norm = batch_norm(dtype=self.dtype_policy, name="norm").precedes(self)

    def build(self, input_shape):
        """Creates the norm's weights, the kernel [inputs, units] and the bias."""
        self.norm.build(input_shape)
        super().build(input_shape)

    def call(self, inputs, training=None):
        """Normalises and projects."""
        return super().call(self.norm(inputs, training=training), training=training)
