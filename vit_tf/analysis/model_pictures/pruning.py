"""Pictures of models that drop tokens."""

from collections.abc import Sequence

import keras
from matplotlib.figure import Figure

from vit_tf.analysis.kept_patches import drops_patches, kept_patches, plot_kept_patches
from vit_tf.analysis.model_pictures.picture import Picture, Subject, caption


def _kept(subjects: Sequence[Subject]) -> dict[str, Figure]:
    figures = {}
    for s in subjects:
        images = s.images[: s.shown]
        kept = kept_patches(s.model, images, s.batch_size, s.progress)
        stages = [
            f"block {block}: {count} of {kept[0, 0].size}"
            for block, count in zip(s.model.pruning_blocks, s.model.kept_tokens, strict=True)
        ]
        figures[caption(s, subjects)] = plot_kept_patches(
            s.seen[: s.shown], kept, stages, s.titles[: s.shown], panel=2.0
        )
    return figures


def _drops_none(model: keras.Model) -> str:
    return "" if drops_patches(model) else "drops no patches"


PICTURES = {
    "kept_patches": Picture(
        "Kept patches",
        "What is left of each image before the blocks at which the model drops patches: those "
        "that are white go no further, and cost nothing from there on.\n\n"
        "Every image keeps as many. What stays should be the object, and of it the parts that "
        "tell it from others; a plain background goes first. (Rao et al. 2021, figure 4.)",
        _kept,
        _drops_none,
        unusual=True,
    ),
}
