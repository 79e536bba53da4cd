"""Speed of the input pipeline, side by side with what TensorFlow users have, on the same shards.

  make benchmark-input DATA_DIR=data/flowers5

Compared are images per second of one core. Each round measures every pipeline once, in turn, and
counts seconds of the processor (of all threads together), so that other work on the machine
disturbs little; ratios are taken within a round, and the median is reported.

  fused      written by hand as TensorFlow's guides advise: fused decode-and-crop (of a random part
             in training, of the middle in evaluation), bilinear resize, mirror, scale to [-1, 1];
             nothing is seeded, checked or resumable
  official   tf-models-official's parser of `classification_input`, with the same reading
  vit_tf     `vit_tf.data.Input`
"""

import argparse
import functools
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import tensorflow as tf
from official.vision.configs import common as official_configs
from official.vision.dataloaders import classification_input
from official.vision.ops import augment as official_augment
from results_file import describe_machine, describe_versions, write_result

from vit_tf.data import Input, TFDSSource, register_op
from vit_tf.data.op_registry import FeaturesFn
from vit_tf.data.ops import on_image

_BATCH = 32
_SIZE = 224
_WARM_UP_BATCHES = 12  # longer than what is prepared ahead
_TRAIN = f"decode_jpeg_and_inception_crop({_SIZE})|flip_lr{{}}|value_range(-1, 1)"
_EVAL = {
    "eval": f"decode_jpeg_and_central_crop({_SIZE})|value_range(-1, 1)",
    "eval resize_small": f"decode|resize_small(256)|central_crop({_SIZE})|value_range(-1, 1)",
}
_RATIOS = {  # name: (pipeline, compared with)
    "crop_vs_fused": ("vit_tf crop", "fused crop"),
    "crop_vs_official": ("vit_tf crop", "official crop"),
    "randaugment_vs_official": ("vit_tf randaug", "official randaug"),
    "randaugment_vs_official_op_in_vit_tf": ("vit_tf randaug", "vit_tf official_randaug"),
    "eval_vs_fused": ("vit_tf eval", "fused eval"),
    "eval_vs_official": ("vit_tf eval", "official eval"),
    "resize_small_eval_vs_fused": ("vit_tf eval resize_small", "fused eval"),
    "randaugment_vs_crop_alone": ("vit_tf randaug", "vit_tf crop"),
    "timm_randaugment_vs_crop_alone": ("vit_tf timm_randaug", "vit_tf crop"),
}


@register_op("official_randaug", random=True)
def _official_randaug(num_layers: int, magnitude: float) -> FeaturesFn:
    return on_image(official_augment.RandAugment(num_layers, magnitude).distort)


def _ours(source: TFDSSource, ops: str, training: bool) -> tf.data.Dataset:
    data = Input(source, ops, _BATCH, training=training)
    return data() if training else data().repeat()


def _read(source: TFDSSource, example: Callable, training: bool) -> tf.data.Dataset:
    """The way of reading that goes with the pipelines of others."""
    records = tf.data.TFRecordDataset([segment.path for segment in source.segments])
    if training:
        records = records.repeat().shuffle(source.num_examples)
    examples = records.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
    batches = examples.batch(_BATCH, drop_remainder=training).prefetch(tf.data.AUTOTUNE)
    return batches if training else batches.repeat()


def _fused(source: TFDSSource, training: bool) -> tf.data.Dataset:
    def train_part(encoded: tf.Tensor) -> tf.Tensor:
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(encoded),
            tf.zeros([0, 0, 4]),
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.05, 1.0),
            min_object_covered=0.0,
            use_image_if_no_bounding_boxes=True,
        )
        return tf.concat([begin[:2], size[:2]], axis=0)

    def eval_part(encoded: tf.Tensor) -> tf.Tensor:
        height_width = tf.io.extract_jpeg_shape(encoded)[:2]
        side = tf.cast(tf.cast(tf.reduce_min(height_width), tf.float32) * _SIZE / 256, tf.int32)
        return tf.concat([(height_width - side) // 2, [side, side]], axis=0)

    def example(serialized: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = source.parse(serialized)
        part = (train_part if training else eval_part)(features["image"])
        image = tf.image.decode_and_crop_jpeg(features["image"], part, channels=3)
        image = tf.image.resize(image, [_SIZE, _SIZE])
        if training:
            image = tf.image.random_flip_left_right(image)
        return image / 127.5 - 1.0, features["label"]

    return _read(source, example, training)


def _official(source: TFDSSource, training: bool, randaug: bool = False) -> tf.data.Dataset:
    policy = official_configs.RandAugment(num_layers=2, magnitude=10)
    parser = classification_input.Parser(
        [_SIZE, _SIZE],
        source.num_classes,
        image_field_key="image",
        label_field_key="label",
        aug_type=official_configs.Augmentation(type="randaug", randaug=policy) if randaug else None,
    )
    parse = parser.parse_fn(training)
    return _read(source, lambda serialized: parse(source.parse(serialized)), training)


def _pipelines(source: TFDSSource) -> dict[str, Callable[[], tf.data.Dataset]]:
    """In the order of measurement: next to each other what is compared."""

    def ours(ops: str, training: bool = True) -> Callable[[], tf.data.Dataset]:
        return functools.partial(_ours, source, ops, training)

    return {
        "fused crop": functools.partial(_fused, source, True),
        "vit_tf crop": ours(_TRAIN.format("")),
        "official crop": functools.partial(_official, source, True),
        "vit_tf timm_randaug": ours(_TRAIN.format("|timm_randaug('rand-m9-mstd0.5-inc1')")),
        "vit_tf official_randaug": ours(_TRAIN.format("|official_randaug(2, 10)")),
        "vit_tf randaug": ours(_TRAIN.format("|randaug(2, 10)")),
        "official randaug": functools.partial(_official, source, True, randaug=True),
        "official eval": functools.partial(_official, source, False),
        "vit_tf eval": ours(_EVAL["eval"], training=False),
        "fused eval": functools.partial(_fused, source, False),
        "vit_tf eval resize_small": ours(_EVAL["eval resize_small"], training=False),
    }


def main() -> None:
    """Measures, prints the table, keeps the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True, help="shards of JPEG photographs")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="measure pipelines with this in their name")
    arguments = parser.parse_args()
    source = TFDSSource(arguments.data_dir, "train")
    pipelines = {
        name: make() for name, make in _pipelines(source).items() if arguments.only in name
    }
    print(f"machine   {describe_machine()}\nversions  {describe_versions()}\n")
    print("images per second of one core, in brackets per second of the clock")
    rounds = []
    for number in range(arguments.rounds):
        rounds.append({name: _rates(data, arguments.seconds) for name, data in pipelines.items()})
        print(f"round {number + 1} of {arguments.rounds}")
        for name, rates in rounds[-1].items():
            print(f"  {name:28s}{rates['core']:8.0f} ({rates['clock']:5.0f})", flush=True)
    ratios = {
        name: _median_ratio(rounds, *pair)
        for name, pair in _RATIOS.items()
        if set(pair) <= set(pipelines)
    }
    print("\n" + "\n".join(f"{name:38s}{ratio:6.2f}" for name, ratio in ratios.items()))
    if not arguments.only:
        print(f"result    {write_result('input', ratios, rounds)}")


def _rates(dataset: tf.data.Dataset, seconds: float) -> dict[str, float]:
    """Images per second; a new iterator each time, so that none works while others are timed."""
    batches = iter(dataset)
    for _ in range(_WARM_UP_BATCHES):
        next(batches)
    clock, core, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - clock < seconds:
        batch = next(batches)
        count += int(tf.reduce_sum(batch["mask"])) if isinstance(batch, dict) else len(batch[0])
    rates = {
        "core": count / (time.process_time() - core),
        "clock": count / (time.perf_counter() - clock),
    }
    return {name: round(rate, 1) for name, rate in rates.items()}


def _median_ratio(rounds: list[dict[str, dict[str, float]]], name: str, other: str) -> float:
    return round(statistics.median(x[name]["core"] / x[other]["core"] for x in rounds), 2)


if __name__ == "__main__":
    main()
