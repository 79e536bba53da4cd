"""LeViT's convolutions in the place of the patch embedding."""

from collections.abc import Sequence

import keras
from keras import ops

from vit_tf.layers.activations import get_activation
from vit_tf.layers.batch_norm import batch_norm
from vit_tf.layers.initialization import get_initializer


@keras.saving.register_keras_serializable(package="vit_tf")
class LeViTStem(keras.layers.Layer):
    """3x3 convolutions of stride 2 (Graham et al. 2021, "LeViT", section 4.2.1).

    Each has no bias, one pixel of zeros on every side and batch norm behind it; the activation
    stands between them, not after the last. Input [batch, height, width, channels], output
    [batch, rows, columns, widths[-1]]; each convolution halves the sides, rounding up.

    Args:
        widths: Output channels of the convolutions.
        activation: Name of the activation, see `layers.activations`.

    Raises:
        ValueError: There is no convolution.
    """

    def __init__(self, widths: Sequence[int], activation: str = "hard_swish", **kwargs):
        super().__init__(**kwargs)
        self.widths = tuple(widths)
        if not self.widths:
            raise ValueError("A stem needs one convolution at least; stem_widths is empty.")
        self.activation = activation
        self._activate = get_activation(activation)
        self.convolutions = [
            keras.layers.Conv2D(
                channels,
                3,
                strides=2,
                use_bias=False,
                kernel_initializer=get_initializer("deit", "patch_kernel"),  # torch's default
                data_format="channels_last",
                dtype=self.dtype_policy,
                name=f"conv{index}",
            )
            for index, channels in enumerate(self.widths)
        ]
        self.norms = [
            batch_norm(dtype=self.dtype_policy, name=f"norm{index}").follows(convolution)
            for index, convolution in enumerate(self.convolutions)
        ]

    def build(self, input_shape):
        """Creates kernels [3, 3, channels, width] and the norms."""
        channels = input_shape[-1]
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            convolution.build((None, None, None, channels))
            channels = convolution.filters
            norm.build((None, None, None, channels))

    def call(self, images, training=None):
        """Runs the stem."""
        features = images
        for index, convolution in enumerate(self.convolutions):
            if index:
                features = self._activate(features)
            # Padding "same" would put the only pixel at the end.
            features = convolution(ops.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0))))
            features = self.norms[index](features, training=training)
        return features

    def compute_output_shape(self, input_shape):
        """Returns (batch, rows, columns, widths[-1])."""
        batch, *sides, _ = input_shape
        for _ in self.widths:
            sides = [None if side is None else -(-side // 2) for side in sides]
        return (batch, *sides, self.widths[-1])

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {"widths": self.widths, "activation": self.activation}
        return {**super().get_config(), **config}
