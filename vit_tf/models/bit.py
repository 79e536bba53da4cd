"""Big Transfer: ResNet v2 with group norm and weight standardisation (Kolesnikov et al. 2019).

Architecture and names of units follow google-research/big_transfer.
"""

from collections.abc import Sequence

import keras
from keras import ops

from vit_tf.layers import NOWHERE, Intermediates
from vit_tf.layers.bottleneck import preactivation_conv, preactivation_norm
from vit_tf.layers.max_pool import max_pool
from vit_tf.layers.resnet import check_stages, create_stages, root_width, stage_intermediates
from vit_tf.models.base import ImageModel
from vit_tf.models.registry import register, register_family

# Depth of the network -> units of its stages.
_STAGES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# Published (depth, width factor).
_VARIANTS = [(50, 1), (101, 1), (50, 3), (101, 3), (152, 2), (152, 4)]


@keras.saving.register_keras_serializable(package="vit_tf")
class BiT(ImageModel):
    """Big Transfer; [batch, height, width, channels] images to [batch, num_classes] logits.

    A 7x7 convolution with stride 2 and a 3x3 max-pool with stride 2, both zero-padded on all
    sides; stages of pre-activation bottlenecks; group norm, ReLU, mean over positions, and a linear
    head that starts at zero. The head computes in float32 whatever the policy. A model takes the
    image size it was made for, and its weights fit every size: the published models were
    pre-trained at 224 pixels and fine-tuned at 128 (images below 96 x 96) or 480.

    Args:
        resnet_stages: Number of units in each stage, e.g. (3, 4, 6, 3).
        resnet_width_factor: Multiplies all channels; a multiple of 0.5.
        image_size: Side of the input in pixels, or (height, width).
        name: Name of the Keras model, with which the paths of all weights begin.
        **kwargs: Arguments of `ImageModel`: `num_classes`, `channels`, `preprocessing`, ...

    Raises:
        ValueError: A stage is no positive integer, there is none, or the factor gives channels
            that no group norm can share.
    """

    def __init__(
        self,
        resnet_stages: Sequence[int],
        resnet_width_factor: float = 1,
        image_size: int | tuple[int, int] = 224,
        name: str = "bit",
        **kwargs,
    ):
        super().__init__(image_size=image_size, name=name, **kwargs)
        self.resnet_stages = check_stages(resnet_stages)
        if not self.resnet_stages:
            raise ValueError("resnet_stages=() leaves nothing of a BiT; give e.g. (3, 4, 6, 3).")
        self.resnet_width_factor = resnet_width_factor
        width, policy = root_width(resnet_width_factor), self.dtype_policy
        self.width = 4 * width * 2 ** (len(self.resnet_stages) - 1)
        self.conv_root = preactivation_conv(width, 7, strides=2, dtype=policy, name="conv_root")
        self.blocks = create_stages(self.resnet_stages, width, preactivation=True, dtype=policy)
        self.gn_final = preactivation_norm(dtype=policy, name="gn_final")
        self.create_heads()
        self.build(self.input_shape)

    @property
    def heads(self):
        """See `ImageModel.heads`."""
        return {"head": self.width}

    def build(self, input_shape):
        """Creates all weights for [batch, height, width, channels]."""
        self.conv_root.build(input_shape)
        batch, height, width, features = self.conv_root.compute_output_shape(input_shape)
        shape = (batch, -(-height // 2), -(-width // 2), features)  # after the max-pool
        for block in self.blocks:
            block.build(shape)
            shape = block.compute_output_shape(shape)
        self.gn_final.build(shape)
        self.build_heads()

    def call(self, images, training=None, intermediates: Intermediates = NOWHERE):
        """Classifies images.

        Args:
            images: Floating-point [batch, height, width, channels].
            training: Ignored: nothing here depends on it.
            intermediates: Collector of named tensors, see `extract_features`.

        Returns:
            Logits [batch, num_classes]; the pooled vector, [batch, width], where num_classes is 0.

        Raises:
            ValueError: The images have another shape or an integer dtype.
        """
        self.check_images(images)
        grid = self._root(images, intermediates.scope("root"))
        for block in self.blocks:
            grid = block(grid, intermediates=intermediates.scope(block.name))
        grid = ops.relu(self.gn_final(grid))
        intermediates.record("encoded", grid)
        pooled = ops.mean(grid, axis=(1, 2))
        intermediates.record("head_input", pooled)
        intermediates.record("pre_logits", pooled)
        if self.head is None:
            return pooled
        logits = self.head(pooled)
        intermediates.record("logits", logits)
        return logits

    def _root(self, images, intermediates):
        """Convolution and max-pool: [batch, height / 4, width / 4, channels]."""
        images = self.conv_root(images)
        intermediates.record("conv", images)
        # No norm or ReLU came before, so zeros at the border and "same" padding (minus infinity)
        # differ: a negative maximum becomes 0.
        images = ops.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
        images = max_pool(images, 3, 2)
        intermediates.record("pool", images)
        return images

    @property
    def intermediate_names(self) -> list[str]:
        """Names of the tensors that `extract_features` can return, in the order of computation."""
        names = ["root/conv", "root/pool"]
        names += stage_intermediates(self.resnet_stages, preactivation=True)
        names += ["encoded", "head_input", "pre_logits"]
        return names + (["logits"] if self.head is not None else [])

    def compute_output_shape(self, input_shape):
        """Returns the shape of the logits, or of the pooled vector."""
        return (input_shape[0], self.num_classes or self.width)


register_family("bit", BiT)
for _depth, _factor in _VARIANTS:
    register(
        f"bit_r{_depth}x{_factor}",
        BiT,
        {"resnet_stages": _STAGES[_depth], "resnet_width_factor": _factor},
        f"BiT-R{_depth}x{_factor}",
    )
