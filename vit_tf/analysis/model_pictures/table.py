"""All pictures of models by name, and how they are drawn."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import keras
from matplotlib.figure import Figure

from vit_tf.analysis.model_pictures import attention, layers, pruning, weights
from vit_tf.analysis.model_pictures.picture import Subject
from vit_tf.suggestions import did_you_mean

# A page shows them in this order. A further picture is an entry of such a table.
PICTURES = {**weights.PICTURES, **attention.PICTURES, **pruning.PICTURES, **layers.PICTURES}


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A picture of the models that it can be made of.

    Args:
      name: in `PICTURES`.
      figures: by caption; none if no model has what it shows.
      notes: a sentence for each model that was left out.
    """

    name: str
    figures: Mapping[str, Figure]
    notes: Sequence[str]


def choose_pictures(
    names: Sequence[str], num_images: int, models: Sequence[keras.Model] = ()
) -> list[str]:
    """Checks which pictures are wanted.

    Args:
      names: of `PICTURES`; none: all that can be made of so many images.
      num_images: how many there are.
      models: what they are made of; without names an unusual picture that none of them has is left
        out.

    Raises:
      ValueError: a name is unknown, or a named picture needs more images than there are.
    """
    for name in names:
        if name not in PICTURES:
            hint = did_you_mean(name, PICTURES)
            raise ValueError(
                f"the picture {name!r} is unknown; there are {', '.join(PICTURES)}.{hint}"
            )
        needed = PICTURES[name].needs_images
        if needed and not num_images:
            raise ValueError(f"the picture {name} is of images; name files or folders of them")
        if num_images < needed:
            raise ValueError(f"the picture {name} needs {needed} images; there are {num_images}")
    if names:
        return list(dict.fromkeys(names))
    return [
        name
        for name, picture in PICTURES.items()
        if num_images >= picture.needs_images
        and (not picture.unusual or any(not picture.lacks(model) for model in models))
    ]


def draw_pictures(subjects: Sequence[Subject], names: Sequence[str]) -> Iterator[Drawn]:
    """Draws pictures one after another, each of all models that have what it shows.

    Args:
      subjects: the models, whose images are the same ones.
      names: of `PICTURES`, see `choose_pictures`.
    """
    for name in names:
        picture = PICTURES[name]
        reasons = {subject.name: picture.lacks(subject.model) for subject in subjects}
        fit = [subject for subject in subjects if not reasons[subject.name]]
        notes = [f"Left out: {model} {reason}." for model, reason in reasons.items() if reason]
        yield Drawn(name, picture.draw(fit) if fit else {}, notes)
