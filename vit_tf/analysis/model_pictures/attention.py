"""Pictures of attention: how far heads look, and where."""

from collections.abc import Sequence

import keras
import numpy as np
from matplotlib.figure import Figure

from vit_tf.analysis.attention_distance import (
    model_attention_distance,
    patch_distances,
    plot_attention_distance,
)
from vit_tf.analysis.attention_maps import lacks_attention, plot_attention_maps
from vit_tf.analysis.model_pictures.picture import Picture, Subject, caption
from vit_tf.analysis.spread import at_most

_MOST_LAYERS = 12  # drawn of deeper models, evenly spread, the last among them
_MOST_HEADS = 16


def _distance(subjects: Sequence[Subject]) -> dict[str, Figure]:
    distances, uniform = {}, {}
    for s in subjects:
        distances[s.name] = model_attention_distance(
            s.model, s.images, batch_size=s.batch_size, progress=s.progress
        )
        uniform[s.name] = _uniform_distance(s.model)
    return {"": plot_attention_distance(distances, uniform)}


def _uniform_distance(model: keras.Model) -> float:
    """The distance of attention that is the same to all tokens; to others than patches it is 0."""
    sides = zip(model.image_size, model.grid_size, strict=True)
    distances = patch_distances(model.grid_size, tuple(side / patches for side, patches in sides))
    others = model.num_prefix_tokens + model.num_registers
    return distances.sum(axis=1).mean() / (len(distances) + others)


def _rollout(subjects: Sequence[Subject]) -> dict[str, Figure]:
    maps, seen = {}, {}
    for s in subjects:
        name = s.name if len(subjects) > 1 else "rollout"
        maps[name] = s.attention["rollout"]
        seen[name] = s.seen[: s.shown]
        if s.pools_by_attention:
            pool = f"{s.name}: pool" if len(subjects) > 1 else "pool"
            maps[pool] = s.attention["pool"].mean(axis=1)
            seen[pool] = seen[name]
    figure = plot_attention_maps(seen, maps, subjects[0].titles, panel=2.4)
    return {"": figure}


def _layers(subjects: Sequence[Subject]) -> dict[str, Figure]:
    figures = {}
    for s in subjects:
        layers = s.attention["layers"]
        maps = {f"layer {n}": layers[:, n] for n in at_most(range(layers.shape[1]), _MOST_LAYERS)}
        if s.pools_by_attention:
            maps["pool"] = s.attention["pool"].mean(axis=1)
        figures[caption(s, subjects)] = plot_attention_maps(
            s.seen[: s.shown], maps, s.titles, panel=1.2
        )
    return figures


def _heads(subjects: Sequence[Subject]) -> dict[str, Figure]:
    figures = {}
    for s in subjects:
        layers = s.attention["heads"][0]  # [layers, heads, rows, columns]
        maps = {
            f"layer {n}": layers[n, :_MOST_HEADS] for n in at_most(range(len(layers)), _MOST_LAYERS)
        }
        if s.pools_by_attention:
            maps["pool"] = s.attention["pool"][0, :_MOST_HEADS]
        heads = min(layers.shape[1], _MOST_HEADS)
        image = np.broadcast_to(s.seen[0], (heads, *s.seen[0].shape))
        titles = [f"head {n}" for n in range(heads)]
        figures[caption(s, subjects)] = plot_attention_maps(
            image, maps, titles, with_image=False, panel=1.0
        )
    return figures


PICTURES = {
    "attention_distance": Picture(
        "Attention distance",
        "How far each head looks: a point is a head of a layer, its height the mean distance in "
        "pixels between a patch and those that it attends to, weighted by attention, over all "
        "images given. The line joins the means of layers; the dashed line is attention that is "
        "the same to all tokens.\n\n"
        "It is what a receptive field is to a convolution. In the first layers of well trained "
        "models some heads look next to them, as small convolutions do, and others already across "
        "the image; in the last layers nearly all look far. Models trained on little data often "
        "lack the near ones. Attention to class tokens and registers counts as distance 0. "
        "(Dosovitskiy et al. 2020, figure 7 right; Raghu et al. 2021.)",
        _distance,
        lacks_attention,
    ),
    "attention_rollout": Picture(
        "Attention rollout",
        "Which patches the output is made of, bright for most: attention multiplied through all "
        "layers, with the identity for the residual connections. It is the attention of the tokens "
        "that the model's head reads, or the mean over patches where it averages them. The column "
        "named pool, of models that pool by attention, is what the pooling probe itself takes.\n\n"
        "Bright on the object, the model seems to judge by the object; bright on the background, a "
        "border or a few scattered patches, look closer. Each map is scaled to its own smallest "
        "and largest value, so a faint preference looks as strong as a clear one. (Abnar and "
        "Zuidema 2020; Dosovitskiy et al. 2020, figure 6.)",
        _rollout,
        lacks_attention,
    ),
    "attention_layers": Picture(
        "Attention of each layer",
        "The mean over heads of what the model's output tokens attend to in single layers, from "
        "the first to the last; nothing is multiplied here.\n\n"
        "Where layers begin to single out the object, the model has found it. Single bright "
        "patches on plain background in late layers are tokens that large models use as memory; "
        "registers take that part over (Darcet et al. 2023).",
        _layers,
        lacks_attention,
    ),
    "attention_heads": Picture(
        "Attention of each head",
        "The same for every head (rows) of the layers (columns), on the first image.\n\n"
        "Heads that differ have different tasks: some find edges, some the object, some a fixed "
        "direction. Heads that all look alike say that the layer has more of them than it uses.",
        _heads,
        lacks_attention,
    ),
}
