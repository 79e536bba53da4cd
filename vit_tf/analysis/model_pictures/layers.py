"""Pictures of layers: how alike they are, what they see, keep and add."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from matplotlib.figure import Figure

from vit_tf.analysis.layer_outputs import trunk_layers
from vit_tf.analysis.layer_similarity import ModelLayers, layer_similarity, plot_layer_similarity
from vit_tf.analysis.model_pictures.picture import Picture, Subject, caption
from vit_tf.analysis.receptive_field import plot_receptive_fields, receptive_fields
from vit_tf.analysis.skip_ratio import plot_skip_ratio, skip_ratio
from vit_tf.analysis.spread import at_most
from vit_tf.analysis.token_localisation import plot_token_localisation, token_localisation

_TOGETHER = 32  # images at most that CKA compares with each other; fewer give more noise
_FIELD_IMAGES = 16  # enough to be smooth; each costs a gradient a layer
_MOST_FIELDS = 7
_MOST_LAYERS = 6  # whose tokens are looked for in the image


def _similarity(subjects: Sequence[Subject]) -> dict[str, Figure]:
    first, *others = subjects
    figures = {}
    for s in subjects:
        found = layer_similarity(_watched(s, _batches(s)), ModelLayers(s.model))
        figures[caption(s, subjects)] = plot_layer_similarity(found, s.name)
    for s in others:
        pairs = list(zip(_batches(first), _batches(s), strict=True))
        found = layer_similarity(_watched(s, pairs), ModelLayers(first.model), ModelLayers(s.model))
        figure = plot_layer_similarity(found, "", first.name, s.name)
        figures[f"{first.name} and {s.name}"] = figure
    return figures


def _fields(subjects: Sequence[Subject]) -> dict[str, Figure]:
    fields = {}
    for s in subjects:
        layers = at_most(trunk_layers(s.model), _MOST_FIELDS)
        images = s.images[:_FIELD_IMAGES]
        fields[s.name] = receptive_fields(
            s.model, images, layers, batch_size=s.batch_size, progress=s.progress
        )
    return {"": plot_receptive_fields(fields)}


def _skips(subjects: Sequence[Subject]) -> dict[str, Figure]:
    figures = {}
    for s in subjects:
        ratio = skip_ratio(s.model, s.images, s.batch_size, s.progress)
        figures[caption(s, subjects)] = plot_skip_ratio(ratio, s.name)
    return figures


def _places(subjects: Sequence[Subject]) -> dict[str, Figure]:
    figures = {}
    for s in subjects:
        layers = trunk_layers(s.model)
        layers = at_most(layers[layers.index("tokens") :], _MOST_LAYERS)
        maps = token_localisation(s.model, _watched(s, _batches(s)), layers)
        figures[caption(s, subjects)] = plot_token_localisation(maps, s.name)
    return figures


def _batches(subject: Subject) -> list[np.ndarray]:
    """The images in batches of about one size: a last one of few images would be mostly noise."""
    return np.array_split(subject.images, -(-len(subject.images) // _TOGETHER))


def _watched(subject: Subject, batches: Sequence[Any]) -> Iterator[Any]:
    """The batches, with the subject's progress."""
    return (batches[number] for number in subject.progress(range(len(batches))))


def _no_tokens(model: keras.Model) -> str:
    return "" if "tokens" in model.intermediate_names else "has no tokens"


PICTURES = {
    "layer_similarity": Picture(
        "Similarity of layers",
        "How alike each two layers are (linear CKA): bright where both find the same images alike, "
        "whatever directions they use for it. With several models, also the layers of the first "
        "beside those of each other one.\n\n"
        "Transformers are one bright block: each layer adds a little to what is there. Residual "
        "networks fall into stages, and their last layers are unlike the first. A dark cross is a "
        "layer that does something of its own; a bright square of late layers says that the model "
        "is deeper than it needs. Between models, look where the bright ridge runs: it tells which "
        "layers do the same work. Of few images the picture is noisy; some hundred make it firm. "
        "(Kornblith et al. 2019; Raghu et al. 2021, section 3.)",
        _similarity,
        needs_images=16,
    ),
    "receptive_fields": Picture(
        "Effective receptive fields",
        "Which pixels the middle of the image depends on at each layer: the mean size of the "
        "gradient of the middle token (of residual networks, the middle cell) with respect to each "
        "pixel. Above each is the share of pixels that hold half of it; 50 % would be the same "
        "everywhere.\n\n"
        "A Transformer sees the whole image from its first block on, with a peak at the token's "
        "own patch, which the skip connections carry along. A residual network's field is local "
        "and grows with depth. Each map is scaled to its own maximum, by the square root. "
        "(Luo et al. 2016; Raghu et al. 2021, section 4.)",
        _fields,
    ),
    "skip_ratio": Picture(
        "What blocks keep and what they add",
        "Per block and sublayer, how long a token's vector was before, over how long what the "
        "sublayer added is. Above the dotted line the skip connection carries most, below it the "
        "sublayer overwrites. The band holds all patches, the line is their median.\n\n"
        "In well trained models with a class token the first blocks leave it as it is and work on "
        "the patches; in the last ones it is the other way round: there the class token gathers "
        "what the patches found. A sublayer high above the line for all tokens adds next to "
        "nothing. (Raghu et al. 2021, section 5.)",
        _skips,
        _no_tokens,
    ),
    "token_localisation": Picture(
        "Do tokens stay at their place?",
        "Each map belongs to one token, framed at its place, and shows how alike (linear CKA) the "
        "token and the pixels of each patch are over all images; rows are layers. Beside a row "
        "stands for how many tokens their own patch is the most alike.\n\n"
        "At first every token is its patch. Bright frames up to the last row: the tokens still "
        "tell what is where, which detection and segmentation build on; so it is in well trained "
        "models with a class token. Where a model averages its tokens, each learns to tell about "
        "the image as a whole, and maps fade or follow the borders. Of few images the maps are "
        "noise. (Raghu et al. 2021, section 6.)",
        _places,
        _no_tokens,
        needs_images=64,
    ),
}
