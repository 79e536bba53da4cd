"""How much of each token a layer leaves as it was, and how much it adds.

Raghu et al. 2021, "Do Vision Transformers See Like Convolutional Neural Networks?", section 5: in a
sublayer z + f(z) the ratio of norms ||z|| / ||f(z)||. In trained models the class token is carried
through the first blocks by the skip connections and written in the last ones; for patches it is the
other way round.
"""

import itertools
import re
from typing import Any, NamedTuple

import keras
import matplotlib
import numpy as np
from keras import ops
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from vit_tf.analysis.in_batches import Progress, in_batches
from vit_tf.analysis.layer_outputs import TokenGroups, token_groups

_SUM = re.compile(r"block\d+/(after_\w+|out)")  # what a sublayer leaves behind


class SkipRatio(NamedTuple):
    """||z|| / ||f(z)|| of all sublayers, the mean over images; infinite where nothing is added.

    Attributes:
      sublayers: names such as "block00/attn" and "block00/mlp", the first first.
      class_tokens: float64 [sublayers, class tokens]; a distillation token is one.
      registers: float64 [sublayers, registers].
      patches: float64 [sublayers, rows, columns].
    """

    sublayers: list[str]
    class_tokens: np.ndarray
    registers: np.ndarray
    patches: np.ndarray


def skip_ratio(
    model: keras.Model,
    images: np.ndarray,
    batch_size: int = 8,
    progress: Progress = iter,
    **arguments,
) -> SkipRatio:
    """Measures the residual stream of a Transformer or a Mixer.

    f(z) is what is really added, the stream behind a sublayer less the stream before it, so that
    LayerScale counts. In half types small additions are mostly rounding: give a model in float32.

    Args:
      model: a model of this package.
      images: [images, height, width, channels], preprocessed.
      batch_size: images at a time.
      progress: see `in_batches`.
      **arguments: what else the model's `call` takes, e.g. `patch_size` of a FlexiViT.

    Returns:
      The ratios.

    Raises:
      ValueError: the model has no blocks with a skip connection around each sublayer, or there is
        no image.
    """
    sums = [name for name in model.intermediate_names if _SUM.fullmatch(name)]
    if not sums:
        raise ValueError(
            f"the model {getattr(model, 'variant', None) or type(model).__name__} has no residual "
            "stream of tokens; give a Transformer or a Mixer, such as vit_b16"
        )
    stream = ["tokens", *sums]

    def ratios(batch: Any) -> dict[str, Any]:
        tokens = list(token_groups(model, batch, stream, **arguments).values())
        steps = [_ratios(*pair) for pair in itertools.pairwise(tokens)]
        return {
            group: ops.stack([getattr(step, group) for step in steps], axis=1)
            for group in TokenGroups._fields
        }

    of_images = in_batches(ratios, images, batch_size, progress)
    means = {group: values.mean(axis=0, dtype=np.float64) for group, values in of_images.items()}
    return SkipRatio([_sublayer(model, name) for name in sums], **means)


def plot_skip_ratio(ratio: SkipRatio, title: str = "") -> Figure:
    """Draws ratios over blocks, a panel a kind of sublayer.

    Args:
      ratio: see `skip_ratio`.
      title: of the picture.

    Returns:
      The figure: lines of class and distillation token, of the registers' median and of the
      patches', these in a band from the smallest to the largest; the axis of ratios is logarithmic.
      Above the dotted line at 1 the skip connection carries more than the sublayer adds.
    """
    kinds = list(dict.fromkeys(name.partition("/")[2] for name in ratio.sublayers))
    figure = Figure(figsize=(4.4 * len(kinds), 3.8), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    patch_color, *colors = matplotlib.color_sequences["tab10"]
    for axes, kind in zip(panels, kinds, strict=True):
        chosen = [place for place, name in enumerate(ratio.sublayers) if name.endswith(f"/{kind}")]
        patches = ratio.patches[chosen].reshape(len(chosen), -1)
        axes.axhline(1, color="#8c959f", linestyle=":", linewidth=1.2)
        axes.fill_between(
            range(len(chosen)),
            patches.min(axis=1),
            patches.max(axis=1),
            color=patch_color,
            alpha=0.2,
            linewidth=0,
        )
        axes.plot(
            np.median(patches, axis=1), "o-", markersize=4, color=patch_color, label="patches"
        )
        for (label, values), color in zip(_other_tokens(ratio).items(), colors, strict=False):
            axes.plot(values[chosen], "o-", markersize=4, color=color, label=label)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("block")
        axes.set_title(kind, fontsize=10)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("‖z‖ / ‖f(z)‖")
    panels[0].legend(fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=10)
    return figure


def _other_tokens(ratio: SkipRatio) -> dict[str, np.ndarray]:
    """By a line's label the ratios [sublayers] of tokens that are no patches."""
    names = ("class token", "distillation token")
    lines = dict(zip(names, ratio.class_tokens.T, strict=False))
    if ratio.registers.shape[1]:
        lines["registers"] = np.median(ratio.registers, axis=1)
    return lines


def _ratios(before: TokenGroups, after: TokenGroups) -> TokenGroups:
    """Ratios of norms over the last axis, float32."""
    return TokenGroups(*(_ratio(*pair) for pair in zip(before, after, strict=True)))


def _ratio(before: Any, after: Any) -> Any:
    before, after = ops.cast(before, "float32"), ops.cast(after, "float32")
    return ops.norm(before, axis=-1) / ops.norm(after - before, axis=-1)


def _sublayer(model: keras.Model, name: str) -> str:
    """The branch that was added to give the sum `name`: it is computed right before it."""
    names = model.intermediate_names
    return names[names.index(name) - 1]
