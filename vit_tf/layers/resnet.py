"""Stages of residual units, and the convolutional stem of the hybrids (ResNet v1)."""

import numbers
from collections.abc import Iterable, Sequence

import keras
from keras import ops

from vit_tf.layers.bottleneck import (
    GROUPS,
    BottleneckUnit,
    PreactivationUnit,
    postactivation_norm,
)
from vit_tf.layers.intermediates import NOWHERE, Intermediates
from vit_tf.layers.max_pool import MaxPooling
from vit_tf.layers.standardized_conv import StandardizedConv2D


@keras.saving.register_keras_serializable(package="vit_tf")
class ResNetStage(keras.layers.Layer):
    """Units of one width in a row; the first takes the stride.

    Input [batch, height, width, channels], output [batch, ceil(height / strides),
    ceil(width / strides), 4 * filters].

    Args:
        depth: Number of units.
        filters: Channels inside the bottlenecks.
        strides: Step of the first unit.
        preactivation: Whether units are `PreactivationUnit`s, named unit01, unit02, ... as in Big
            Transfer, or `BottleneckUnit`s, named unit1, unit2, ... as in vision_transformer.
    """

    def __init__(
        self, depth: int, filters: int, strides: int = 1, preactivation: bool = False, **kwargs
    ):
        super().__init__(**kwargs)
        self.depth = depth
        self.filters = filters
        self.strides = strides
        self.preactivation = preactivation
        unit_class = PreactivationUnit if preactivation else BottleneckUnit
        self.units = [
            unit_class(
                filters, strides if index == 0 else 1, dtype=self.dtype_policy, name=unit_name
            )
            for index, unit_name in enumerate(unit_names(depth, preactivation))
        ]

    def build(self, input_shape):
        """Creates all weights for [batch, height, width, channels]."""
        for unit in self.units:
            unit.build(input_shape)
            input_shape = unit.compute_output_shape(input_shape)

    def call(self, images, intermediates: Intermediates = NOWHERE):
        """Runs the units; records each one's output under its name."""
        for unit in self.units:
            images = unit(images, intermediates=intermediates.scope(unit.name))
            intermediates.record(unit.name, images)
        return images

    def compute_output_shape(self, input_shape):
        """Returns (batch, ceil(height / strides), ceil(width / strides), 4 * filters)."""
        for unit in self.units:
            input_shape = unit.compute_output_shape(input_shape)
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {
            "depth": self.depth,
            "filters": self.filters,
            "strides": self.strides,
            "preactivation": self.preactivation,
        }
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="vit_tf")
class ResNetStem(keras.layers.Layer):
    """The ResNet before a hybrid's transformer (Dosovitskiy et al. 2020, section 3.1, "Hybrid").

    The root is a 7x7 convolution with stride 2, group norm, ReLU and a 3x3 max-pool with stride 2;
    then stages of post-activation bottlenecks, the first with stride 1, each later one with stride
    2 and twice the channels. Everything pads as "same", the pool with minus infinity. Input
    [batch, height, width, channels], output [batch, ceil(height / stride), ceil(width / stride),
    channels_out], where `stride` is 4 without stages (the pool is always there), else
    2 ** (1 + number of stages).

    Args:
        stages: Number of units in each stage; empty for the root alone.
        width_factor: Multiplies the 64 channels of the root and the widths of the stages.

    Raises:
        ValueError: A stage without units, or channels that cannot be normalised in 32 groups.
    """

    def __init__(self, stages: Sequence[int], width_factor: float = 1, **kwargs):
        super().__init__(**kwargs)
        self.stages = check_stages(stages)
        self.width_factor = width_factor
        width, policy = root_width(width_factor), self.dtype_policy
        self.conv_root = StandardizedConv2D(width, 7, strides=2, dtype=policy, name="conv_root")
        self.gn_root = postactivation_norm(dtype=policy, name="gn_root")
        self.pool = MaxPooling(
            3, strides=2, padding="same", data_format="channels_last", dtype=policy, name="pool"
        )
        self.blocks = create_stages(self.stages, width, dtype=policy)

    def build(self, input_shape):
        """Creates all weights for [batch, height, width, channels]."""
        for part in (self.conv_root, self.gn_root, self.pool, *self.blocks):
            part.build(input_shape)
            input_shape = part.compute_output_shape(input_shape)

    def call(self, images, intermediates: Intermediates = NOWHERE):
        """Runs root and stages; records `conv_root`, `gn_root` and what the stages record."""
        images = self.conv_root(images)
        intermediates.record("conv_root", images)
        images = self.gn_root(images)
        intermediates.record("gn_root", images)
        images = self.pool(ops.relu(images))
        for block in self.blocks:
            images = block(images, intermediates=intermediates.scope(block.name))
        return images

    @property
    def stride(self) -> int:
        """How many times smaller than the image the output is."""
        return 2 ** (1 + max(len(self.stages), 1))

    @property
    def intermediate_names(self) -> list[str]:
        """Names of what `call` records, in the order of computation."""
        return ["conv_root", "gn_root", *stage_intermediates(self.stages, preactivation=False)]

    def compute_output_shape(self, input_shape):
        """Returns (batch, ceil(height / stride), ceil(width / stride), channels_out)."""
        for part in (self.conv_root, self.gn_root, self.pool, *self.blocks):
            input_shape = part.compute_output_shape(input_shape)
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        config = {"stages": self.stages, "width_factor": self.width_factor}
        return {**super().get_config(), **config}


def create_stages(
    stages: Sequence[int], width: int, preactivation: bool = False, **kwargs
) -> list[ResNetStage]:
    """Returns the stages block1, block2, ...: stride 1, then 2; `width` filters, then doubled."""
    return [
        ResNetStage(
            depth,
            width * 2**index,
            strides=1 if index == 0 else 2,
            preactivation=preactivation,
            name=f"block{index + 1}",
            **kwargs,
        )
        for index, depth in enumerate(stages)
    ]


def stage_intermediates(stages: Sequence[int], preactivation: bool) -> list[str]:
    """Returns the names of what the stages of `create_stages` record, in order."""
    shortcut, branch = ("conv_proj", "conv3") if preactivation else ("gn_proj", "gn3")
    names = []
    for index, depth in enumerate(stages):
        for unit_index, unit in enumerate(unit_names(depth, preactivation)):
            path = f"block{index + 1}/{unit}"
            # Only the first unit changes the shape, and always does: its input is narrower.
            names += [f"{path}/{shortcut}"] if unit_index == 0 else []
            names += [f"{path}/{branch}", path]
    return names


def unit_names(depth: int, preactivation: bool) -> list[str]:
    """Returns the names of a stage's units as the reference's checkpoints have them."""
    return [
        f"unit{index:02d}" if preactivation else f"unit{index}" for index in range(1, depth + 1)
    ]


def check_stages(stages: Sequence[int]) -> tuple[int, ...]:
    """Returns the stages as a tuple.

    Raises:
        ValueError: They are no sequence of positive integers.
    """
    given = tuple(stages) if isinstance(stages, Iterable) else (None,)
    if not all(isinstance(depth, numbers.Integral) and depth > 0 for depth in given):
        raise ValueError(
            "resnet_stages holds the number of units of each stage, positive integers, e.g. "
            f"(3, 4, 6, 3); got {stages!r}."
        )
    return given


def root_width(width_factor: float) -> int:
    """Returns the number of channels of the root.

    Raises:
        ValueError: It is no multiple of the number of groups of a group norm.
    """
    width = int(64 * width_factor)
    if width <= 0 or width % GROUPS:
        raise ValueError(
            f"resnet_width_factor={width_factor} gives {width} channels, which {GROUPS} groups "
            f"cannot share; give a multiple of {GROUPS / 64}."
        )
    return width
