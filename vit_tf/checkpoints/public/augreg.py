"""The names of the AugReg checkpoints, of which there are more than 50,000.

Steiner et al. 2021, "How to train your ViT?". `gs://vit_models/augreg/index.csv` has a row for each
pair of a pre-trained and a fine-tuned file; either name, its columns `filename` and
`adapt_filename`, can be given as weights. A name tells how the file came about:

    B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0
    B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0--imagenet2012-steps_20k-lr_0.03-res_384
"""

import dataclasses
import re
from typing import Any

from vit_tf.suggestions import did_you_mean

_BUCKET = "gs://vit_models/augreg"
_PRE_TRAINING_RESOLUTION = 224
# The name's first part -> registered model.
_MODELS = {
    "Ti_16": "vit_ti16",
    "S_32": "vit_s32",
    "S_16": "vit_s16",
    "B_32": "vit_b32",
    "B_16": "vit_b16",
    "B_8": "vit_b8",
    "L_16": "vit_l16",
    "R_Ti_16": "vit_r_ti16",
    "R26_S_32": "vit_r26_s32",
    "R50_L_32": "vit_r50_l32",
}
# The index calls 30 epochs on ImageNet-21k a data set of its own.
_NUM_CLASSES = {"i1k": 1000, "i21k": 21843, "i21k_30": 21843}
_UPSTREAM = {"i1k": "ImageNet-1k", "i21k": "ImageNet-21k", "i21k_30": "ImageNet-21k"}
_AUGMENTATIONS = ("none", "light0", "light1", "medium1", "medium2", "strong1", "strong2")
# Fine-tuning data whose number of classes is known; of others the file itself tells it.
_FINE_TUNED_CLASSES = {"imagenet2012": 1000, "cifar100": 100, "oxford_iiit_pet": 37, "resisc45": 45}
_NUMBER = r"(\d+(?:\.\d+)?)"
_PRE_TRAINED = re.compile(
    rf"(\w+)-(\w+)-(\d+)ep-lr_{_NUMBER}-aug_(\w+)-wd_{_NUMBER}-do_{_NUMBER}-sd_{_NUMBER}"
)
_FINE_TUNED = re.compile(rf"([\w-]+?)-steps_(\w+)-lr_{_NUMBER}-res_(\d+)")
_EXAMPLE = (
    "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0, with "
    "--imagenet2012-steps_20k-lr_0.03-res_384 behind it where fine-tuned"
)


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """The part of an AugReg name behind the two dashes.

    Args:
        dataset: Name of the data set, e.g. "imagenet2012".
        steps: Training steps in thousands, cut off: "20k", "2k" (2,500), "0k" (500).
        learning_rate: Base learning rate.
        resolution: Side of the images in pixels.
    """

    dataset: str
    steps: str
    learning_rate: float
    resolution: int

    def __str__(self):
        return f"{self.dataset}-steps_{self.steps}-lr_{self.learning_rate}-res_{self.resolution}"


@dataclasses.dataclass(frozen=True)
class AugRegName:
    """What the name of an AugReg checkpoint says.

    Args:
        size: The model as the name has it, e.g. "B_16" or "R26_S_32".
        dataset: Pre-training data: "i1k" or "i21k".
        epochs: Epochs of pre-training.
        learning_rate: Peak learning rate.
        augmentation: "none", "light0" to "light1", "medium1" to "medium2", "strong1" to "strong2".
        weight_decay: Weight decay, relative to the learning rate.
        dropout: Dropout rate.
        stochastic_depth: Stochastic depth rate.
        fine_tuning: None for a file that was only pre-trained.
    """

    size: str
    dataset: str
    epochs: int
    learning_rate: float
    augmentation: str
    weight_decay: float
    dropout: float
    stochastic_depth: float
    fine_tuning: FineTuning | None = None

    @property
    def filename(self) -> str:
        """The name, without `.npz`; the inverse of `parse_augreg_name`."""
        name = (
            f"{self.size}-{self.dataset}-{self.epochs}ep-lr_{self.learning_rate}"
            f"-aug_{self.augmentation}-wd_{self.weight_decay}-do_{self.dropout}"
            f"-sd_{self.stochastic_depth}"
        )
        return f"{name}--{self.fine_tuning}" if self.fine_tuning else name

    @property
    def url(self) -> str:
        """Where the file is published."""
        return f"{_BUCKET}/{self.filename}.npz"

    @property
    def model(self) -> str:
        """The registered model that the file is of."""
        return _MODELS[self.size]

    @property
    def upstream(self) -> str:
        """Data of the pre-training."""
        return _UPSTREAM[self.dataset]

    @property
    def resolution(self) -> int:
        """Side of the images in pixels."""
        return self.fine_tuning.resolution if self.fine_tuning else _PRE_TRAINING_RESOLUTION

    @property
    def num_classes(self) -> int | None:
        """Size of the head; None where the fine-tuning data are of unknown class count."""
        if self.fine_tuning:
            return _FINE_TUNED_CLASSES.get(self.fine_tuning.dataset)
        return _NUM_CLASSES[self.dataset]

    @property
    def overrides(self) -> dict[str, Any]:
        """What `create_model` needs beside the model's name."""
        overrides = {"image_size": self.resolution}
        if self.num_classes is not None:
            overrides["num_classes"] = self.num_classes
        return overrides


def is_augreg_name(text: str) -> bool:
    """Whether a text is meant as the name of an AugReg file, be it well-formed or not."""
    return "-aug_" in text


def parse_augreg_name(name: str) -> AugRegName:
    """Reads the name of an AugReg checkpoint, with or without `.npz`.

    Raises:
        ValueError: The name is malformed, or names a model, data set or augmentation that there
            are no files of; the part in question and what is valid are given.
    """
    text = name.removesuffix(".npz")
    first, dashes, second = text.partition("--")
    pre_trained = _PRE_TRAINED.fullmatch(first)
    fine_tuned = _FINE_TUNED.fullmatch(second) if dashes else None
    if not pre_trained or (dashes and not fine_tuned):
        wrong = second if pre_trained else first
        raise ValueError(
            f"AugReg name {name!r} is malformed at {wrong!r}; expected is e.g. {_EXAMPLE}."
        )
    size, dataset, epochs, rate, augmentation, decay, dropout, depth = pre_trained.groups()
    for part, given, valid in (
        ("model", size, _MODELS),
        ("pre-training data", dataset, _NUM_CLASSES),
        ("augmentation", augmentation, _AUGMENTATIONS),
    ):
        _check_part(name, part, given, valid)
    parsed = AugRegName(
        size,
        dataset,
        int(epochs),
        float(rate),
        augmentation,
        float(decay),
        float(dropout),
        float(depth),
        _fine_tuning(*fine_tuned.groups()) if fine_tuned else None,
    )
    if parsed.filename != text:
        raise ValueError(f"AugReg name {name!r} is written {parsed.filename!r} in the bucket.")
    return parsed


def _fine_tuning(dataset, steps, rate, resolution):
    return FineTuning(dataset, steps, float(rate), int(resolution))


def _check_part(name, part, given, valid):
    if given not in valid:
        hint = did_you_mean(given, valid, count=1)
        raise ValueError(
            f"AugReg name {name!r} has an unknown {part} {given!r}.{hint} Valid: "
            f"{', '.join(valid)}."
        )
