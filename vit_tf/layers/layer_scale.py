"""LayerScale: a learned factor per channel on a residual branch."""

import keras


@keras.saving.register_keras_serializable(package="vit_tf")
class LayerScale(keras.layers.Layer):
    """Multiplies each channel by a learned factor (Touvron et al. 2021, CaiT, section 2).

    Input and output are [..., width].

    Args:
        initial_value: What the factors start with; 1e-4 in DeiT-III.
    """

    def __init__(self, initial_value: float = 1e-4, **kwargs):
        super().__init__(**kwargs)
        self.initial_value = initial_value

    def build(self, input_shape):
        """Creates the factors [width]."""
        self.gamma = self.add_weight(
            name="gamma",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.initial_value),
        )

    def call(self, inputs):
        """Scales [..., width]."""
        return inputs * self.gamma

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "initial_value": self.initial_value}
