"""The 19 tasks of VTAB: which data sets, which of their examples, and what their labels are.

Source: Zhai et al., 2019, "A Large-scale Study of Representation Learning with the Visual Task
Adaptation Benchmark" (arXiv:1910.04867), as google-research/task_adaptation has it (commit d7630d3,
`task_adaptation/data`): names and versions in TFDS, splits, label maps, numbers of examples.
Whether a mirror image keeps its label (`flip`) is a judgement of this project; the reference does
not augment.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

SPLITS = ("train800", "val200", "train800val200", "test")
GROUPS = ("natural", "specialized", "structured")

Features = Mapping[str, tf.Tensor]
_ONE = tf.io.FixedLenFeature([], tf.int64)
_POINTS = tf.io.FixedLenSequenceFeature([3], tf.float32, allow_missing=True)
_INTEGERS = tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True)


@dataclasses.dataclass(frozen=True)
class LabelMap:
    """How a record's features become a class.

    Args:
      spec: the features that are needed, as `tf.io.parse_single_example` takes them.
      label: these features -> int64 scalar (TensorFlow graph code).
    """

    spec: Mapping[str, tf.io.FixedLenFeature | tf.io.FixedLenSequenceFeature]
    label: Callable[[Features], tf.Tensor]


def stored(feature: str) -> LabelMap:
    """The class number that is stored under a name."""
    return LabelMap({feature: _ONE}, lambda features: features[feature])


def binned(feature: str, values: int, classes: int) -> LabelMap:
    """Neighbouring ones of so many stored values put into so many classes.

    The quotient is that of float32, as in the reference: 40 orientations in 16 classes are bins of
    two or three.
    """
    width = np.float32(values / classes)

    def label(features: Features) -> tf.Tensor:
        return tf.cast(tf.math.floordiv(tf.cast(features[feature], tf.float32), width), tf.int64)

    return LabelMap({feature: _ONE}, label)


def _clevr_count(features: Features) -> tf.Tensor:
    """3 to 10 objects are the classes 0 to 7."""
    return tf.size(features["objects/size"], tf.int64) - 3


def _between(value: tf.Tensor, thresholds: Sequence[float]) -> tf.Tensor:
    """The last of the thresholds that a value is above."""
    above = tf.constant(thresholds, tf.float32) < value
    return tf.reduce_sum(tf.cast(above, tf.int64)) - 1


def _clevr_distance(features: Features) -> tf.Tensor:
    """Distance of the closest object, the third of its pixel coordinates, in six bins."""
    closest = tf.reduce_min(features["objects/pixel_coords"][:, 2])
    return _between(closest, (0.0, 8.0, 8.5, 9.0, 9.5, 10.0))


def _kitti_distance(features: Features) -> tf.Tensor:
    """Depth in metres of the closest car, van or truck: near, middle, far, or there is none."""
    is_vehicle = features["objects/type"] < 3
    depths = tf.boolean_mask(features["objects/location"][:, 2], is_vehicle)
    return _between(
        tf.reduce_min(tf.concat([depths, [1000.0]], axis=0)), (-100.0, 8.0, 20.0, 999.0)
    )


_LABEL = stored("label")


@dataclasses.dataclass(frozen=True)
class VTABTask:
    """One task.

    Args:
      name: what it is called here.
      group: one of `GROUPS`.
      dataset: name, and configuration, in TFDS.
      major_version: of the data set in the reference; other ones may hold other examples.
      num_classes: of the labels.
      test_examples: how many the reference's test split has.
      labels: how records become classes.
      validation: split that the validation examples are from.
      validation_after: they are those after so many percent of it, rounded down.
      test: split that the test examples are from.
      test_after: they are those after the sum of so many percent, each rounded down.
      flip: whether a mirror image has the same label.
      scale: what stored pixel values are multiplied with; dSprites' are 0 and 1.
      by_hand: files that TFDS cannot download; what a person has to do.
    """

    name: str
    group: str
    dataset: str
    major_version: int
    num_classes: int
    test_examples: int
    labels: LabelMap = _LABEL
    validation: str = "validation"
    validation_after: int = 0
    test: str = "test"
    test_after: tuple[int, ...] = ()
    flip: bool = True
    scale: int = 1
    by_hand: str | None = None

    def split(self, name: str, sizes: Mapping[str, int]) -> str:
        """A TFDS split expression.

        Args:
          name: one of `SPLITS`.
          sizes: number of examples of each of the data set's own splits.

        Raises:
          ValueError: for another name, or a data set without the splits that are needed, or with
            too few examples in them.
        """
        if name not in SPLITS:
            raise ValueError(f"VTAB's splits are {', '.join(SPLITS)}; given {name!r}")
        if missing := {"train", self.validation, self.test} - sizes.keys():
            raise ValueError(
                f"{self.dataset} has no split {min(missing)!r}; it has {', '.join(sorted(sizes))}"
            )
        first = self.validation_after * sizes[self.validation] // 100
        if sizes["train"] < 800 or sizes[self.validation] < first + 200:
            raise ValueError(
                f"{self.dataset} is too small: VTAB takes 800 examples of train, and 200 of "
                f"{self.validation} after the first {first:,}; there are {dict(sizes)}"
            )
        train, val = "train[:800]", f"{self.validation}[{first}:{first + 200}]"
        after = sum(percent * sizes[self.test] // 100 for percent in self.test_after)
        test = f"{self.test}[{after}:]" if after else self.test
        both = f"{train}+{val}"
        return {"train800": train, "val200": val, "train800val200": both, "test": test}[name]

    def num_examples(self, split: str) -> int:
        """How many examples a split has in the reference."""
        return {"train800": 800, "val200": 200, "train800val200": 1000}.get(
            split, self.test_examples
        )

    @property
    def build(self) -> str:
        """How to get the data set."""
        command = f"tfds build {self.dataset} --data_dir=DATA_DIR"
        return f"{command}, after: {self.by_hand}" if self.by_hand else command


# Splits that are made of a percentage of the training data, and of one split of everything.
_NINE_TENTHS = {"validation": "train", "validation_after": 90}
_ALL_IN_TRAIN = {"validation": "train", "test": "train"}
_THIRDS = {**_ALL_IN_TRAIN, "validation_after": 60, "test_after": (60, 20)}
_CLEVR = {**_NINE_TENTHS, "test": "validation"}
_DSPRITES = {**_ALL_IN_TRAIN, "validation_after": 80, "test_after": (80, 10), "scale": 255}
_NORB = {"validation": "test", "test_after": (50,)}

_MANUAL = "DATA_DIR/downloads/manual"
_ALL = (
    VTABTask("caltech101", "natural", "caltech101", 3, 102, 6084, **_NINE_TENTHS),
    VTABTask("cifar100", "natural", "cifar100", 3, 100, 10_000, **_NINE_TENTHS),
    VTABTask("dtd", "natural", "dtd", 3, 47, 1880),
    VTABTask("oxford_flowers102", "natural", "oxford_flowers102", 2, 102, 6149),
    VTABTask(
        "oxford_iiit_pet",
        "natural",
        "oxford_iiit_pet",
        3,
        37,
        3669,
        validation="train",
        validation_after=80,
    ),
    VTABTask("sun397", "natural", "sun397/tfds", 4, 397, 21_750),
    VTABTask("svhn", "natural", "svhn_cropped", 3, 10, 26_032, **_NINE_TENTHS, flip=False),
    VTABTask("patch_camelyon", "specialized", "patch_camelyon", 2, 2, 32_768),
    VTABTask("eurosat", "specialized", "eurosat/rgb", 2, 10, 5400, **_THIRDS),
    VTABTask(
        "resisc45",
        "specialized",
        "resisc45",
        3,
        45,
        6300,
        **_THIRDS,
        by_hand="download NWPU-RESISC45.rar (https://1drv.ms/u/s!AmgKYzARBl5ca3HNaHIlzp_IXjs) and "
        f"unpack it to {_MANUAL}/NWPU-RESISC45",
    ),
    VTABTask(
        "diabetic_retinopathy",
        "specialized",
        "diabetic_retinopathy_detection/btgraham-300",
        3,
        5,
        42_670,
        by_hand="download kaggle.com/c/diabetic-retinopathy-detection and unpack it to "
        f"{_MANUAL}: sample/, train/, test/, sampleSubmission.csv, trainLabels.csv",
    ),
    VTABTask(
        "clevr_count",
        "structured",
        "clevr",
        3,
        8,
        15_000,
        LabelMap({"objects/size": _INTEGERS}, _clevr_count),
        **_CLEVR,
    ),
    VTABTask(
        "clevr_distance",
        "structured",
        "clevr",
        3,
        6,
        15_000,
        LabelMap({"objects/pixel_coords": _POINTS}, _clevr_distance),
        **_CLEVR,
    ),
    VTABTask("dmlab", "structured", "dmlab", 2, 6, 22_735),
    VTABTask(
        "dsprites_location",
        "structured",
        "dsprites",
        2,
        16,
        73_728,
        binned("label_x_position", 32, 16),
        **_DSPRITES,
        flip=False,
    ),
    VTABTask(
        "dsprites_orientation",
        "structured",
        "dsprites",
        2,
        16,
        73_728,
        binned("label_orientation", 40, 16),
        **_DSPRITES,
        flip=False,
    ),
    VTABTask(
        "kitti_distance",
        "structured",
        "kitti",
        3,
        4,
        711,
        LabelMap({"objects/type": _INTEGERS, "objects/location": _POINTS}, _kitti_distance),
    ),
    VTABTask(
        "smallnorb_azimuth",
        "structured",
        "smallnorb",
        2,
        18,
        12_150,
        stored("label_azimuth"),
        **_NORB,
        flip=False,
    ),
    VTABTask(
        "smallnorb_elevation",
        "structured",
        "smallnorb",
        2,
        9,
        12_150,
        stored("label_elevation"),
        **_NORB,
    ),
)
TASKS: Mapping[str, VTABTask] = {task.name: task for task in _ALL}
