"""Models with public weights, by name."""

import os
import re

import keras

from vit_tf import models, planning
from vit_tf.checkpoints.describe import describe_checkpoint
from vit_tf.checkpoints.files.stored import CheckpointFileError
from vit_tf.checkpoints.load import load_checkpoint
from vit_tf.checkpoints.public.addresses import cache_path
from vit_tf.checkpoints.public.catalogue import find
from vit_tf.checkpoints.public.download import download
from vit_tf.models import LoRA, Origin
from vit_tf.models.registry import registered

# A path, not a tag: it names a folder or a kind of file.
_PATH = re.compile(r"[/\\]|\.(npz|pth|pt|bin|safetensors|keras)(:|$)")


def create_model(
    name: str,
    weights: str | os.PathLike | None = None,
    *,
    include_top: bool = True,
    lora: LoRA | None = None,
    **overrides,
) -> keras.Model:
    """Builds a model, with fresh or with published weights.

    Args:
        name: A registered variant ("vit_b16"), a paper's notation ("ViT-B/16", in any case unless
            two variants differ by nothing else, as ViT-g/14 and ViT-G/14 do), or a family ("vit"),
            whose configuration is then given in full.
        weights: None for fresh ones; a tag of the catalogue (`list_weights(name)`), whose file is
            downloaded once and kept; the name of any AugReg file; or a path as `load_checkpoint`
            takes it, out of which a family's configuration is inferred where it is not given. A
            tag also decides on what its file needs (`num_classes`, `image_size`, ...) unless it is
            given: the weights are then adapted, see `load_checkpoint`.
        include_top: False leaves out the head, as `num_classes=0` does.
        lora: Adapts the model by low-rank matrices once its weights are loaded; the rest is frozen.
        **overrides: Keyword arguments of the family's constructor, e.g. `num_classes`,
            `image_size`; and `name`, `dtype` and `trainable` as every Keras model has them.

    Returns:
        The model; `model.card` says where its weights come from.

    Raises:
        ValueError: The name or the tag is unknown; the closest ones are given.
        TypeError: A keyword is unknown or missing; the valid ones are given.
        OSError: The file cannot be downloaded; how to do it by hand is said.
    """
    model = _create(name, weights, include_top, overrides)
    if lora is not None:
        lora.adapt(model)
    return model


def _create(name, weights, include_top, overrides):
    if weights is None:
        return models.create_model(name, include_top=include_top, **overrides)
    if not isinstance(weights, str | os.PathLike):
        raise ValueError(f"weights is a tag or a path, got {weights!r}.")
    weights = os.fspath(weights)
    if planning.is_planned():
        config = _planned(models.resolve_name(name), weights) | overrides
        return models.create_model(name, include_top=include_top, **config)
    if _PATH.search(weights):
        config = _inferred(models.resolve_name(name), weights) | overrides
        model = models.create_model(name, include_top=include_top, **config)
        load_checkpoint(model, weights)
        return model
    public = find(models.resolve_name(name), weights)
    model = models.create_model(name, include_top=include_top, **{**public.overrides, **overrides})
    load_checkpoint(model, str(download(public.url, checksum=public.checksum)))
    model.origin = Origin(public.url, public.source, public.licence, public.upstream, public.top1)
    return model


def _planned(name, weights):
    """What weights decide on, without loading them; notes whether their file is there."""
    if not _PATH.search(weights):
        public = find(name, weights)
        path = cache_path(public.url)
        problem = None if path.exists() else f"comes from {public.url} when the run starts"
        planning.note("weights", f"{weights} of {name} ({path})", problem)
        return public.overrides
    try:
        config = _inferred(name, weights)
        describe_checkpoint(weights)
    except CheckpointFileError as error:
        planning.note("weights", weights, str(error))
        return {}
    planning.note("weights", weights)
    return config


def _inferred(name, path):
    """What a file tells of a family's configuration; nothing for a registered variant."""
    entry = registered()[name]
    if not entry.is_family:
        return {}
    description = describe_checkpoint(path)
    for call in description.calls:
        found = registered()[call.name]
        if found.model_class is entry.model_class:
            config = {**found.config, **call.keywords}
            if description.assumed:
                del config["num_heads"]  # a guess; `create_model` asks for it
            return config
    return {}
