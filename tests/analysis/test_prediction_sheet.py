"""The sheet of predictions shows mistakes first, and says how many there are."""

import numpy as np
import pytest

from vit_tf.analysis.prediction_sheet import plot_predictions

NAMES = ["ant", "bee", "cat"]
GREEN, RED = "#1a7f37", "#cf222e"


def sheet(labels, predictions, sureness, **arguments):
    """Draws random images predicted as `predictions` with probability `sureness`."""
    count = len(labels)
    rest = (1 - np.array(sureness)) / 2
    probabilities = np.repeat(rest[:, None], 3, axis=1)
    probabilities[np.arange(count), predictions] = sureness
    images = np.random.default_rng(0).uniform(-1, 1, [count, 4, 6, 3]).astype(np.float32)
    return plot_predictions(images, np.array(labels), probabilities, NAMES, **arguments)


def titles(figure):
    said = [(axis.get_title(), axis.title.get_color()) for axis in figure.axes]
    return [pair for pair in said if pair[0]]


def test_mistakes_come_first_in_red_and_the_surest_leads():
    figure = sheet([0, 1, 2, 0], [0, 2, 2, 1], [0.9, 0.6, 0.5, 0.8])
    assert titles(figure) == [
        ("bee (80 %)\ntrue: ant", RED),
        ("cat (60 %)\ntrue: bee", RED),
        ("ant (90 %)", GREEN),
        ("cat (50 %)", GREEN),
    ]


def test_the_title_says_of_how_many_examples_it_speaks():
    figure = sheet([0] * 8, [0] * 7 + [1], [0.7] * 8)
    assert figure.get_suptitle() == (
        "7 of the first 8 right (87.5 %); mistakes first, the surest leading"
    )


@pytest.mark.parametrize(
    ("mistakes", "red", "green"), [(0, 0, 6), (2, 2, 4), (20, 3, 3), (22, 4, 2), (24, 6, 0)]
)
def test_half_of_the_sheet_is_for_mistakes_unless_the_rest_stays_empty(mistakes, red, green):
    predictions = [1] * mistakes + [0] * (24 - mistakes)
    figure = sheet([0] * 24, predictions, [0.7] * 24, columns=3, rows=2)
    colours = [colour for _, colour in titles(figure)]
    assert colours == [RED] * red + [GREEN] * green


def test_all_images_share_one_range_from_black_to_white():
    images = np.array([-1.0, 0.0, 3.0]).reshape(3, 1, 1, 1) * np.ones([3, 2, 2, 1])
    figure = plot_predictions(images, np.zeros(3, int), np.eye(3)[[0, 0, 0]], NAMES)
    shown = [float(axis.images[0].get_array().flat[0]) for axis in figure.axes[:3]]
    assert shown == pytest.approx([0, 0.25, 1])


def test_any_of_several_labels_is_right_and_examples_without_one_are_not_shown():
    labels = [[1, 1, 0], [0, 1, 1], [0, 0, 0], [0, 0, 1]]
    figure = sheet(labels, [1, 0, 0, 2], [0.9, 0.6, 0.5, 0.8])
    assert titles(figure) == [
        ("ant (60 %)\ntrue: bee | cat", RED),
        ("bee (90 %)", GREEN),
        ("cat (80 %)", GREEN),
    ]
    assert figure.get_suptitle() == (
        "2 of the first 3 right (66.7 %), 1 without a label left out; mistakes first, the surest "
        "leading"
    )
