"""The Keras model that a SavedModel of `export_saved_model` was made of."""

import json
import os
from typing import Any

import keras
import tensorflow as tf

from vit_tf.export.saved_model_folder import find_saved_model
from vit_tf.models.registry import registered
from vit_tf.models.weight_names import weight_names


def model_card(folder: str) -> dict[str, Any]:
    """What an export says of itself: its preprocessing, class names, configuration.

    Args:
      folder: of the SavedModel, or of numbered ones, of which the newest is taken.

    Returns:
      The content of `assets.extra/model_card.json`, and as `"folder"` where it was found.

    Raises:
      FileNotFoundError: if it is no SavedModel that `export_saved_model` wrote.
      ValueError: if the card is damaged.
    """
    place = find_saved_model(folder)
    path = os.path.join(place, "assets.extra", "model_card.json")
    if tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path) as file:
            text = file.read()
        try:
            return {**json.loads(text), "folder": place}
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is damaged ({error}); export the model again") from error
    raise FileNotFoundError(
        f"{place} is no SavedModel of tools/export.py: it has no assets.extra/model_card.json"
    )


def keras_model_of(card: dict[str, Any]) -> keras.Model:
    """Builds the model of an export again, with its weights.

    Args:
      card: as `model_card` returns it.

    Raises:
      ValueError: if its family is not known here, or its weights are others than the
        configuration asks for.
    """
    folder = card["folder"]
    classes = {name: entry.model_class for name, entry in registered().items()}
    classes |= {made.__name__: made for made in classes.values()}
    if card["model"] not in classes:
        raise ValueError(
            f"{folder}: no model {card['model']!r} is known; it was exported by others"
        )
    model = classes[card["model"]].from_config(card["config"])
    loaded = tf.saved_model.load(folder)  # its signatures hold the variables only weakly
    served = loaded.signatures["serving_default"].variables
    values = {_name_of(variable): variable.numpy() for variable in served}
    weights = weight_names(model.weights)
    if missing := sorted(weights.keys() - values.keys()):
        raise ValueError(f"{folder} holds no weight {missing[0]!r} ({len(missing)} are missing)")
    for name, weight in weights.items():
        weight.assign(values[name])
    return model


def _name_of(variable: tf.Variable) -> str:
    """Name of a loaded variable as `weight_names` has it: `vit/head/bias:0` -> `head/bias`."""
    return variable.name.removesuffix(":0").partition("/")[2]
