"""The picture of a schedule shows its rates, in steps and in epochs."""

import io

from vit_tf.analysis.schedule_curve import plot_schedule


def test_the_curve_is_that_of_the_rates_and_the_upper_axis_counts_epochs():
    figure = plot_schedule([0, 50, 100], {"learning rate": [0.0, 0.1, 0.05]}, 20.0, "a model")
    (axes,) = figure.axes
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[0, 0.0], [50, 0.1], [100, 0.05]]
    (epochs,) = axes.child_axes
    figure.savefig(io.BytesIO(), format="png")
    assert epochs.get_xlim() == (0.0, 5.0)


def test_several_groups_are_told_apart_and_epochs_may_be_unknown():
    figure = plot_schedule([0, 9], {"rest": [1.0, 0.1], "head": [2.0, 0.2]})
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["rest", "head"]
    assert not axes.child_axes
