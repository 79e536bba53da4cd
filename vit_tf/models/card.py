"""The card of a model: what it expects, what it gives, and where its weights come from."""

import dataclasses

from vit_tf.models.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where weights come from; `load_checkpoint` fills it in.

    Args:
        file: Path or address of the file.
        source: Paper or project that published it.
        licence: Licence of the weights, not of this code.
        upstream: Data of the pre-training.
        top1: Published ImageNet-1k accuracy in percent.
    """

    file: str
    source: str | None = None
    licence: str | None = None
    upstream: str | None = None
    top1: float | None = None


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """Facts about a model that its users need; `print(card)` lists them.

    Args:
        model: Registered name, or the family's class where the configuration is free.
        parameters: Number of weights, as papers count them: without moving averages.
        num_classes: Size of the output; 0 for a backbone.
        preprocessing: Input size, range or mean and std, resize, crop ratio, interpolation.
        origin: Where the weights come from; None for fresh ones.
    """

    model: str
    parameters: int
    num_classes: int
    preprocessing: Preprocessing
    origin: Origin | None = None

    def __str__(self):
        facts = self.preprocessing
        scaling = f"values in [{facts.value_range[0]:g}, {facts.value_range[1]:g}]"
        if facts.mean is not None:
            scaling = f"mean {facts.mean}, std {facts.std}"
        rows = {
            "model": self.model,
            "parameters": f"{self.parameters:,}",
            "classes": self.num_classes or "none (a backbone)",
            "input": f"{facts.image_size[0]} x {facts.image_size[1]} x {facts.channels}, {scaling}",
            "resize": ", ".join(_resizing(facts)),
            "preprocessing": facts.ops,
        }
        if self.origin is None:
            rows["weights"] = "freshly initialised"
        else:
            told = dataclasses.asdict(self.origin)
            rows |= {name: value for name, value in told.items() if value is not None}
        return "\n".join(f"{name + ':':15}{value}" for name, value in rows.items())


def _resizing(facts: Preprocessing) -> list[str]:
    kind = "stretched" if facts.crop_ratio is None else f"crop ratio {facts.crop_ratio:g}"
    return [facts.interpolation, *(["antialiased"] if facts.antialias else []), kind]
