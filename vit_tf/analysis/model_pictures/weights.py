"""Pictures of weights: filters of the first layer, position embeddings."""

from collections.abc import Sequence

import keras
from matplotlib.figure import Figure

from vit_tf.analysis.model_pictures.picture import Picture, Subject
from vit_tf.analysis.patch_filters import model_filters, plot_patch_filters, principal_filters
from vit_tf.analysis.position_similarity import (
    has_positions,
    model_position_similarity,
    plot_position_similarity,
)


def _positions(subjects: Sequence[Subject]) -> dict[str, Figure]:
    maps = {s.name: model_position_similarity(s.model) for s in subjects}
    return {"": plot_position_similarity(maps)}


def _filters(subjects: Sequence[Subject]) -> dict[str, Figure]:
    filters = {s.name: principal_filters(model_filters(s.model)) for s in subjects}
    return {"": plot_patch_filters(filters)}


def _no_positions(model: keras.Model) -> str:
    return "" if has_positions(model) else "has no position embedding"


def _no_colours(model: keras.Model) -> str:
    channels = model.channels
    return "" if channels in (1, 3) else f"sees {channels} channels, which are no colours"


PICTURES = {
    "patch_filters": Picture(
        "Filters of the first layer",
        "Principal components of the filters that the model lays over the pixels of a patch, the "
        "strongest first; below each, its share of the filters' variance. Grey is zero.\n\n"
        "In a trained model the first ones are smooth waves of growing frequency, in brightness "
        "and in opposed colours: a basis for what a patch can look like. Components that look like "
        "noise and all have the same small share are those of a model that has learnt little yet. "
        "(Dosovitskiy et al. 2020, figure 7 left.)",
        _filters,
        _no_colours,
        needs_images=0,
    ),
    "position_similarity": Picture(
        "Similarity of position embeddings",
        "Each small map belongs to the patch at its place, and shows how similar (cosine) the "
        "patch's position embedding is to those of all patches.\n\n"
        "A Transformer is given a mere sequence of patches; that each map peaks at its own place "
        "and fades along its row and column means that the model has learnt where patches are in "
        "the image. Maps of one colour but for a point say that positions are still random. "
        "Fixed sine and cosine positions show the same pattern in every map, moved along. "
        "(Dosovitskiy et al. 2020, figure 7 centre.)",
        _positions,
        _no_positions,
        needs_images=0,
    ),
}
