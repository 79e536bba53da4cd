"""Tables of weights: every weight in one row, every row with a weight."""

import keras
import numpy as np
import pytest

from vit_tf.models import create_model
from vit_tf.models.weight_names import weight_names
from vit_tf.training import tables

NAMES = ("block00/mlp/kernel", "block00/mlp/bias", "head/kernel", "head/bias")


def match(table, names=NAMES, model=None):
    return tables.match(table, model, names, "learning_rate_table")


def test_the_first_row_that_matches_a_whole_name_counts():
    rows = match((("head/kernel", 5.0), ("head/.*|.*/bias", 2.0), (".*", 1.0)))
    assert [row.names for row in rows] == [
        ("head/kernel",),
        ("block00/mlp/bias", "head/bias"),
        ("block00/mlp/kernel",),
    ]
    assert tables.values(rows)["head/bias"] == 2.0


def test_a_table_may_be_a_function_of_the_model():
    rows = match(lambda model: ((model, 1.0),), model=".*")
    assert rows[0].names == NAMES


def test_the_rest_may_be_nothing():
    assert match((("block.*", 1.0), ("head.*", 2.0), (".*", 3.0)))[-1].names == ()


@pytest.mark.parametrize(
    "table, message",
    [
        ((("head/.*", 1.0),), "matches the weight 'block00/mlp/kernel'; add a last row"),
        (
            (("haed/.*", 1.0), (".*", 1.0)),
            r"the row 'haed/\.\*' of Optimization\.learning_rate_table catches no weight: it must "
            "match a whole name, such as 'head/",
        ),
        (
            (("kernel", 1.0), (".*", 1.0)),
            "row 'kernel' .* catches no weight: it must match a whole",
        ),
        (
            ((".*/bias", 1.0), ("head/bias", 2.0), (".*", 1.0)),
            r"row 'head/bias' .* catches no weight: 'head/bias' and .* row '\.\*/bias' before it",
        ),
        (((".*", 1.0), (".*", 2.0), (".*", 3.0)), r"row '\.\*' .* catches no weight"),
        ((("(", 1.0),), r"'\(' is no regular expression"),
        (3, "must be rows of a regular expression and a value.*given 3"),
        ((".*", 1.0), "must be rows of a regular expression and a value"),
    ],
)
def test_tables_that_do_not_fit(table, message):
    with pytest.raises(ValueError, match=message):
        match(table)


@pytest.mark.parametrize(
    "pattern, label",
    [
        ("head/.*", "head"),
        (".*", "rest"),
        ("(a|b)(/.*)?", "a_b"),
        ("block00/.*", "block00"),
    ],
)
def test_labels_are_plain_names(pattern, label):
    assert tables.label(tables.Row(pattern, 1.0, ())) == label


SIZES = dict(image_size=16, patch_size=8, width=16, num_heads=2, mlp_dim=16, num_classes=3)


@pytest.mark.parametrize("name", ["vit", "deit_distilled", "mixer"])
def test_layerwise_decay_is_the_rule_of_beit_and_mae(name):
    depth, rate = 3, 0.5
    sizes = dict(SIZES)
    if name == "mixer":
        sizes = {k: v for k, v in sizes.items() if k not in ("num_heads", "mlp_dim")}
        sizes |= {"tokens_mlp_dim": 8, "channels_mlp_dim": 8}
    if name == "vit":
        sizes["representation_size"] = 8
    model = create_model(name, depth=depth, **sizes)
    names = list(weight_names(model.trainable_weights))
    found = tables.values(match(tables.layerwise_decay(rate), names, model))

    def layer(weight):  # numbers as BEiT's get_num_layer_for_vit gives them
        top = weight.partition("/")[0]
        if top in ("patch_embedding", "class_token", "distillation_token", "positions"):
            return 0
        return int(top[5:]) + 1 if top.startswith("block") else depth + 1

    assert found == {weight: rate ** (depth + 1 - layer(weight)) for weight in names}
    assert found["head/kernel"] == 1 and found["patch_embedding/projection/kernel"] == 0.5**4


def test_layerwise_decay_of_what_has_no_blocks_or_out_of_range():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="needs a model with blocks block00.* this one has dense"):
        match(tables.layerwise_decay(0.5), model=model)
    for rate in (0.0, 1.5, -np.inf):
        with pytest.raises(ValueError, match=r"layerwise_decay\.rate must lie in \(0, 1\]"):
            tables.layerwise_decay(rate)
