"""Curves over shots: a panel a data set, a line a model, intervals as bands, a log axis."""

import numpy as np

from vit_tf.analysis.shot_curve import ShotPoint, curve_of, plot_shots

SUMMARY = {
    "10_shot": 0.7,
    "10_shot_low": 0.6,
    "10_shot_high": 0.8,
    "1_shot": 0.4,
    "1_shot_low": 0.2,
    "1_shot_high": 0.6,
}
CURVE = curve_of(SUMMARY)


def test_a_summary_is_read_in_the_order_of_shots():
    assert list(CURVE.items()) == [(1, ShotPoint(0.4, 0.2, 0.6)), (10, ShotPoint(0.7, 0.6, 0.8))]
    assert curve_of({"5_shot": 0.5}) == {5: ShotPoint(0.5, 0.5, 0.5)}


def test_lines_and_bands_show_accuracies_and_intervals():
    figure = plot_shots({"flowers": {"vit": CURVE}})
    (axes,) = figure.axes
    (line,) = axes.lines
    assert np.column_stack(line.get_data()).tolist() == [[1, 0.4], [10, 0.7]]
    (band,) = axes.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
    assert corners == {(1, 0.2), (1, 0.6), (10, 0.6), (10, 0.8)}
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "10"]


def test_every_data_set_has_a_panel_and_a_model_the_same_look_in_all():
    curves = {name: {"vit": CURVE, "pixels": CURVE} for name in ("a", "b", "c", "d")}
    curves["b"] = {"pixels": CURVE}
    figure = plot_shots(curves, frozenset({"pixels"}), {"a": 0.1})
    assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c", "d"]
    looks = [{(line.get_color(), line.get_linestyle()) for line in axes.lines[:2]}
             for axes in figure.axes]  # fmt: skip
    assert looks[0] == looks[2] == looks[3] and looks[1] < looks[0]
    assert {style for _, style in looks[0]} == {"-", "--"}
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["vit", "pixels", "chance"]
    assert figure.axes[0].lines[2].get_ydata() == [0.1, 0.1]
    assert len(figure.axes[1].lines) == 1


def test_panels_that_are_not_needed_are_not_seen():
    figure = plot_shots({str(number): {"vit": CURVE} for number in range(5)})
    assert [axes.get_visible() for axes in figure.axes] == [True] * 5 + [False]
