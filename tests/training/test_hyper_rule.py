"""BiT-HyperRule's decisions, tabulated, and its schedule against the reference's loop."""

import numpy as np
import pytest
import tensorflow as tf

from vit_tf.data import Preprocess, TFDSSource
from vit_tf.data.image_files import ImageCollection, ImageRecord
from vit_tf.data.shards import write_dataset
from vit_tf.data.survey import typical_area
from vit_tf.training import RunConfig
from vit_tf.training.hyper_rule import (
    HyperRule,
    hyper_rule_mixing,
    hyper_rule_preprocess,
    hyper_rule_schedule,
    hyper_rule_size,
    hyper_rule_steps,
)
from vit_tf.training.run_length import RunLength

# Examples, and what holds from there on: warm-up's end, three falls, stop; mixup's alpha.
BY_EXAMPLES = [
    (1, (100, 200, 300, 400, 500), 0.0),
    (1_020, (100, 200, 300, 400, 500), 0.0),  # Oxford Flowers
    (19_999, (100, 200, 300, 400, 500), 0.0),
    (20_000, (500, 3_000, 6_000, 9_000, 10_000), 0.1),
    (50_000, (500, 3_000, 6_000, 9_000, 10_000), 0.1),  # CIFAR
    (499_999, (500, 3_000, 6_000, 9_000, 10_000), 0.1),
    (500_000, (500, 6_000, 12_000, 18_000, 20_000), 0.1),
    (1_281_167, (500, 6_000, 12_000, 18_000, 20_000), 0.1),  # ImageNet
]
# Height and width of the data's images; side of the frame, of the crop.
BY_SIZE = [
    ((32, 32), 160, 128),
    ((95, 97), 160, 128),  # 9,215 pixels
    ((96, 96), 512, 480),  # 9,216
    ((48, 192), 512, 480),
    ((224, 224), 512, 480),
]


@pytest.mark.parametrize(("examples", "boundaries", "alpha"), BY_EXAMPLES)
def test_the_number_of_examples_decides_on_schedule_and_mixup(examples, boundaries, alpha):
    rule = HyperRule.of(examples, 32 * 32)
    assert (rule.boundaries, rule.mixup_alpha) == (boundaries, alpha)
    assert hyper_rule_steps(examples) == rule.steps == boundaries[-1]


@pytest.mark.parametrize(("size", "resize", "crop"), BY_SIZE)
def test_the_area_decides_on_the_resolution(size, resize, crop):
    rule = HyperRule.of(1_000, size[0] * size[1])
    assert (rule.resize, rule.crop) == (resize, crop)
    assert hyper_rule_size(lambda: None, size) == crop
    expected = f"decode|resize({resize})|random_crop({crop})|flip_lr|value_range(-1, 1)"
    assert hyper_rule_preprocess(crop) == expected
    assert Preprocess(expected.replace("decode", "decode(1)")).image_shape == (crop, crop, 1)


@pytest.mark.parametrize("examples", [1_000, 50_000, 1_281_167])
def test_the_rate_of_every_step_is_the_references(examples):
    schedule = hyper_rule_schedule(RunLength(hyper_rule_steps(examples), 512, examples))
    warmup, *falls, stop = HyperRule.of(examples, 0).boundaries
    expected = []
    for step in range(stop):  # as the reference's loop asks for it
        fallen = sum(fall < step for fall in falls)
        expected.append(step / warmup if step < warmup else 0.1**fallen)
    found = schedule(np.arange(stop, dtype=np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_shorter_run_keeps_the_proportions():
    rates = np.asarray(hyper_rule_schedule(RunLength(50, 512, 1_000))(np.arange(50.0)))
    np.testing.assert_allclose(rates[:11], np.arange(11) / 10, rtol=1e-6)
    changes = [step for step in range(11, 50) if rates[step] != rates[step - 1]]
    assert changes == [21, 31, 41]


def test_an_image_of_another_shape_has_a_margin_too():
    expected = "decode|resize((80, 120))|random_crop((64, 96))|value_range(-1, 1)"
    assert hyper_rule_preprocess((64, 96), flip=False) == expected
    assert "resize((410, 512))|random_crop((384, 480))" in hyper_rule_preprocess((384, 480))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A source of images of 60 x 100 pixels, and one of 200 x 150 in a file of its own."""

    def record(i, height, width):
        return ImageRecord(
            f"{i}.png", 0, tf.io.encode_png(np.zeros((height, width, 3), np.uint8)).numpy()
        )

    sizes = [(60, 100)] * 5 + [(200, 150)] * 3
    records = [record(i, *size) for i, size in enumerate(sizes)]
    out = tmp_path_factory.mktemp("photos")
    collection = ImageCollection(("a",), {"train": records})
    written = write_dataset(collection, out, "photos", num_shards=2, progress=False)
    return lambda: TFDSSource(str(written.directory), "train")


def test_the_size_of_images_is_read_where_nobody_states_it(photos, digits_dir):
    assert typical_area(photos()) == 6_000
    with tf.Graph().as_default():  # as a dry run asks
        assert typical_area(photos()) == 6_000
    assert hyper_rule_size(photos) == 128
    assert hyper_rule_size(photos, (96, 96)) == 480
    assert hyper_rule_size(lambda: TFDSSource(digits_dir, "train")) == 128


def test_small_data_is_not_mixed(photos, monkeypatch):
    assert hyper_rule_mixing(photos) is None
    monkeypatch.setattr(TFDSSource, "num_examples", 20_000)
    assert "mixup 0.1" in str(hyper_rule_mixing(photos))


def test_a_run_takes_its_length_from_the_examples():
    config = RunConfig(steps=hyper_rule_steps)
    assert config.total_steps(None, examples_per_epoch=20_000) == 10_000
    with pytest.raises(ValueError, match="does not know its size"):
        config.total_steps(10.0)
    with pytest.raises(ValueError, match="hyper_rule_schedule needs an input that knows"):
        hyper_rule_schedule(RunLength(10))
