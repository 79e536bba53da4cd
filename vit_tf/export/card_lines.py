"""A model card's facts, a line each, for a person."""

from collections.abc import Mapping
from typing import Any

# As the card has them; what would fill more than a line is left to the file.
_PLAIN = ("step", "checkpoint", "weights", "precision", "preprocess", "created")


def card_lines(card: Mapping[str, Any]) -> dict[str, str]:
    """What a person asks of a model first.

    Args:
      card: as `vit_tf.export.saved_keras.model_card` returns it; older ones have less.

    Returns:
      Values as text by title, without what the card does not say.
    """
    origin = card.get("origin") or {}
    lines = {
        "model": card.get("model"),
        "parameters": f"{card['parameters']:,}" if card.get("parameters") else None,
        "classes": len(card["class_names"]),
        "evaluated on": _data(card.get("data") or {}),
        "accuracy": _accuracy(card.get("served_accuracy") or card.get("evaluation") or {}),
        **{name: origin.get(name) for name in ("source", "licence", "upstream")},
        **{name: card.get(name) for name in _PLAIN},
    }
    return {title: str(value) for title, value in lines.items() if value is not None}


def _data(data: Mapping[str, Any]) -> str | None:
    if not data.get("name"):
        return None
    named = " ".join(str(data[key]) for key in ("name", "version") if data.get(key))
    return f"{named}, {data['split']}" if data.get("split") else named


def _accuracy(measured: Mapping[str, Any]) -> str | None:
    if measured.get("accuracy") is None:
        return None
    return f"{100 * measured['accuracy']:.2f} % of {measured['examples']:,} images"
