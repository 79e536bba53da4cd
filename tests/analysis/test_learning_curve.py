"""The learning curve shows what metrics.jsonl holds."""

import numpy as np

from vit_tf.analysis.learning_curve import plot_learning_curve

TRAIN = [
    {"step": step, "kind": "train", "loss": 3 - step / 100, "accuracy": step / 200}
    for step in (0, 50, 100)
]
EVALUATION = [{"step": 100, "kind": "eval", "loss": 1.5, "accuracy": 0.75}]


def lines(axis):
    return {line.get_color(): np.column_stack(line.get_data()).tolist() for line in axis.lines}


def test_loss_and_metric_have_a_panel_each_with_training_and_evaluation():
    figure = plot_learning_curve(TRAIN + EVALUATION)
    assert [axis.get_title() for axis in figure.axes] == ["loss", "accuracy"]
    loss, accuracy = map(lines, figure.axes)
    assert list(loss.values()) == [[[0, 3], [50, 2.5], [100, 2]], [[100, 1.5]]]
    assert list(accuracy.values()) == [[[0, 0], [50, 0.25], [100, 0.5]], [[100, 0.75]]]


def test_the_last_values_are_written_at_the_lines_ends_the_larger_above():
    figure = plot_learning_curve(TRAIN + EVALUATION)
    loss, accuracy = [
        {text.get_verticalalignment(): text.get_text() for text in axis.texts}
        for axis in figure.axes
    ]
    assert loss == {"bottom": "2.000", "top": "1.500"}
    assert accuracy == {"bottom": "0.750", "top": "0.500"}


def test_a_run_without_evaluations_shows_training_alone():
    figure = plot_learning_curve(TRAIN)
    assert [len(axis.lines) for axis in figure.axes] == [1, 1]


def test_the_legend_tells_training_from_evaluation_by_the_lines_colours():
    figure = plot_learning_curve(TRAIN + EVALUATION)
    (legend,) = figure.legends
    said = {
        line.get_color(): text.get_text()
        for line, text in zip(legend.get_lines(), legend.get_texts(), strict=True)
    }
    training, evaluation = lines(figure.axes[0])
    assert said == {training: "training batches", evaluation: "evaluation split"}
