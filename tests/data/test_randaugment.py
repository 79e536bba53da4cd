"""RandAugment, AutoAugment: which ops are drawn how often, with which arguments, repeatably."""

import collections
import re

import numpy as np
import pytest
import tensorflow as tf
import tiny_records

from vit_tf.data import autoaugment, randaugment, timm_randaugment
from vit_tf.data.augment_ops import (
    ENHANCING,
    GEOMETRIC,
    OpSet,
    big_vision_ops,
    pillow_ops,
)
from vit_tf.data.op_registry import get_op
from vit_tf.data.timm_randaugment import TimmRandAugment


@pytest.fixture
def drawn(monkeypatch):
    """Runs an op for many seeds and tells the (op, argument) pairs it drew, one list a seed."""
    calls = []

    def record(self, image, number, argument, place):
        calls.append((number, argument))
        return image

    monkeypatch.setattr(OpSet, "apply", record)

    def run(op: str, *args, seeds: int = 1000) -> list[list[tuple[str, float]]]:
        function = get_op(op).make(*args)

        @tf.function(autograph=False)
        def draw(seed):
            calls.clear()
            function({"image": tf.zeros([20, 40, 3], tf.uint8), "seed": seed})
            return tuple(calls)

        dataset = tf.data.Dataset.range(seeds).map(lambda i: draw(tf.stack([7, i]))).batch(seeds)
        layers = next(dataset.as_numpy_iterator())  # for each a pair of [seeds]
        makers = {"timm_randaug": pillow_ops("nearest", 0)}
        names = np.array(makers.get(op, big_vision_ops()).names)
        named = [
            zip(names[numbers], arguments.tolist(), strict=True) for numbers, arguments in layers
        ]
        return [list(pairs) for pairs in zip(*named, strict=True)]

    return run


def assert_uniform(counts: dict[str, int], names: tuple[str, ...], total: int) -> None:
    """Each name's count is within 4.5 standard deviations of its share."""
    assert set(counts) == set(names)
    share = 1 / len(names)
    deviation = 4.5 * np.sqrt(total * share * (1 - share))
    assert np.abs(np.array(list(counts.values())) - total * share).max() < deviation


# big_vision


def test_randaug_draws_each_of_the_16_ops_equally_often_and_independently(drawn):
    pairs = drawn("randaug", 2, 10)
    assert all(len(layers) == 2 for layers in pairs)
    names = [[name for name, _ in layers] for layers in pairs]
    for layer in range(2):
        assert_uniform(
            collections.Counter(n[layer] for n in names), randaugment.RANDAUG_OPS, len(names)
        )
    same = sum(first == second for first, second in names)
    assert 25 < same < 105  # 1000 / 16, 5 standard deviations


def test_randaug_negates_half_of_the_geometric_arguments_and_no_others(drawn):
    arguments = collections.defaultdict(list)
    for layers in drawn("randaug", 2, 10):
        for name, argument in layers:
            arguments[name].append(argument)
    for name, values in arguments.items():
        if name in GEOMETRIC:
            assert 0.25 < np.mean(np.array(values) < 0) < 0.75, name
            assert len({round(abs(value), 5) for value in values}) == 1, name
        else:
            assert len(set(values)) == 1 and values[0] >= 0, name
    assert arguments["Color"][0] == pytest.approx(1.9)
    assert abs(arguments["Rotate"][0]) == 30 and abs(arguments["TranslateX"][0]) == 100


def test_cutout_is_centred_anywhere():
    image = tf.zeros([16, 16, 3], tf.uint8)
    op_set = big_vision_ops()
    number = tf.constant(op_set.names.index("Cutout"))
    corners = set()
    for seed in range(60):
        place = tf.random.stateless_uniform([2], (0, seed))
        cut = op_set.apply(image, number, tf.constant(3.0), place).numpy()[..., 0]
        corners.add(tuple(np.argwhere(cut)[0]))
    rows, columns = zip(*corners, strict=True)
    assert len(corners) > 40 and {min(rows), min(columns)} == {0} and max(rows) >= 11


def test_magnitude_0_is_augmentation_and_level_none_is_not():
    image = tf.constant(tiny_records.pixels(0, 12, 12))

    def results(op: str, *args) -> list[bytes]:
        function = get_op(op).make(*args)
        seeds = [tf.constant([0, i], tf.int64) for i in range(12)]
        return [function({"image": image, "seed": s})["image"].numpy().tobytes() for s in seeds]

    assert set(results("augreg", "none")) == {image.numpy().tobytes()}
    assert len(set(results("augreg", "light1"))) > 5
    assert results("augreg", "light1") == results("randaug", 2, 0)


def test_augreg_levels_are_those_of_the_paper():
    levels = randaugment.AUGREG_LEVELS
    table = {name: (x.num_layers, x.magnitude, x.mixup_alpha) for name, x in levels.items()}
    assert table == {
        "none": (0, 0, 0.0),
        "light1": (2, 0, 0.0),
        "light2": (2, 10, 0.2),
        "medium1": (2, 15, 0.2),
        "medium2": (2, 15, 0.5),
        "strong1": (2, 20, 0.5),
        "strong2": (2, 20, 0.8),
    }
    assert randaugment.augreg_mixup_alpha("strong2") == 0.8
    message = "got 'stong1'. Did you mean 'strong1'"
    with pytest.raises(ValueError, match=message):
        randaugment.augreg_mixup_alpha("stong1")


def test_augreg_levels_draw_what_the_randaug_of_their_strength_draws(drawn):
    for name, level in randaugment.AUGREG_LEVELS.items():
        if name == "none":  # draws nothing, see above
            continue
        expected = drawn("randaug", level.num_layers, level.magnitude, seeds=40)
        assert drawn("augreg", name, seeds=40) == expected, name


def test_autoaug_draws_its_pairs_with_their_probabilities(drawn):
    pairs = drawn("autoaug", seeds=2000)
    first, second = (collections.Counter(layers[i][0] for layers in pairs) for i in range(2))
    for place, counts in enumerate((first, second)):
        expected = collections.Counter()
        for sub_policy in autoaugment.POLICY_V0:
            name, probability, _ = sub_policy[place]
            expected[name] += probability / len(autoaugment.POLICY_V0)
            expected["Identity"] += (1 - probability) / len(autoaugment.POLICY_V0)
        for name, share in expected.items():
            deviation = 4.5 * np.sqrt(2000 * share * (1 - share))
            assert abs(counts[name] - 2000 * share) <= deviation, (place, name)
        assert set(counts) <= set(expected)
    # (Rotate, 7) comes with (TranslateY, 9): 21 degrees and 225 pixels.
    together = {tuple(sorted(abs(a) for _, a in x)) for x in pairs if "TranslateY" in dict(x)}
    assert {tuple(np.round(x, 3)) for x in together} == {(21.0, 225.0)}


# timm


def test_timm_configuration_strings():
    assert TimmRandAugment.parse("rand-m9-mstd0.5-inc1") == TimmRandAugment(
        magnitude=9, magnitude_std=0.5, increasing=True
    )
    assert TimmRandAugment.parse("rand") == TimmRandAugment(10, 2, 0.5, 0, 10, False)
    assert TimmRandAugment.parse("rand-mmax20-n3-p.7-m15-mstdinf-inc0") == TimmRandAugment(
        15, 3, 0.7, float("inf"), 20, False
    )


@pytest.mark.parametrize("config", ["m9", "rand-m9-m8", "rand-w0", "rand-", "rand-mx", "v0-m9", ""])
def test_bad_timm_configuration_strings_are_shown_the_form(config):
    message = f"like 'rand-m9-mstd0.5-inc1'; got {config!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        TimmRandAugment.parse(config)


def test_timm_applies_half_of_the_ops_each_equally_often(drawn):
    names = [name for layers in drawn("timm_randaug") for name, _ in layers]
    counts = collections.Counter(names)
    assert abs(counts.pop("Identity") - 1000) < 4.5 * np.sqrt(500)
    assert_uniform(counts, timm_randaugment.TIMM_OPS, sum(counts.values()))


def test_timm_arguments_at_magnitude_9_get_stronger_in_both_directions(drawn):
    arguments = collections.defaultdict(set)
    for layers in drawn("timm_randaug", "rand-m9-inc1-p1"):
        for name, argument in layers:
            arguments[name].add(round(argument, 4))
    expected = {  # timm's *_level_to_arg at 9; the image is 20 pixels high and 40 wide
        "Rotate": {27.0, -27.0},
        "Posterize": {1.0},
        "Solarize": {26.0},
        "SolarizeAdd": {99.0},
        "ShearX": {0.27, -0.27},
        "ShearY": {0.27, -0.27},
        "TranslateX": {16.2, -16.2},
        "TranslateY": {8.1, -8.1},
        **{name: {0.19, 1.81} for name in ENHANCING},
    }
    assert {name: arguments[name] for name in expected} == expected


def test_timm_arguments_without_inc(drawn):
    arguments = {n: a for layers in drawn("timm_randaug", "rand-m9-p1") for n, a in layers}
    assert arguments["Posterize"] == 3 and arguments["Solarize"] == 230
    assert arguments["Contrast"] == pytest.approx(0.1 + 1.8 * 0.9)


def test_timm_arguments_beyond_magnitude_10(drawn):
    layers = drawn("timm_randaug", "rand-m20-mmax20-inc1-p1")
    arguments = {name: argument for pairs in layers for name, argument in pairs}
    assert arguments["Posterize"] == 0 and arguments["SolarizeAdd"] == 128
    assert arguments["Solarize"] <= 0  # all is inverted
    assert arguments["Color"] in (pytest.approx(0.1), pytest.approx(2.8))


def test_timm_magnitudes_are_normal_and_cut_at_10(drawn):
    config = "rand-m9-mstd0.5-p1"
    degrees = [abs(a) for layers in drawn("timm_randaug", config, seeds=3000) for n, a in layers
               if n == "Rotate"]  # fmt: skip
    magnitudes = np.array(degrees) / 3
    assert magnitudes.max() == pytest.approx(10) and 8.9 < magnitudes.mean() < 9.1
    assert 0.4 < magnitudes.std() < 0.6
    uniform = [abs(a) / 3 for layers in drawn("timm_randaug", "rand-m9-mstd101-p1", seeds=3000)
               for n, a in layers if n == "Rotate"]  # fmt: skip
    assert min(uniform) < 0.5 and max(uniform) > 8.5 and 4 < np.mean(uniform) < 5
