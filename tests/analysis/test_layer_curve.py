"""A curve over depth has a point a layer, and says where it is highest."""

from vit_tf.analysis.layer_curve import plot_layers


def layers(*values):
    return {f"block{place:02}": value for place, value in enumerate(values)}


def test_each_curve_has_a_point_a_layer_and_its_highest_value_written():
    figure = plot_layers({"flowers": layers(0.2, 0.5, 0.4), "digits": layers(0.6, 0.9)}, title="t")
    (axes,) = figure.axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert drawn == {"flowers": [0.2, 0.5, 0.4], "digits": [0.6, 0.9]}
    assert [(text.get_text(), text.xy) for text in axes.texts] == [
        ("50.0%", (1, 0.5)),
        ("90.0%", (1, 0.9)),
    ]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["block00", "block01", "block02"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["flowers", "digits"]


def test_a_deep_model_names_every_other_layer():
    (axes,) = plot_layers({"g14": layers(*[0.5] * 40)}).axes
    assert [tick.get_text() for tick in axes.get_xticklabels()][:3] == [
        "block00",
        "block03",
        "block06",
    ]
    assert axes.get_legend() is None
