"""Data sets as a command line names them."""

import pytest

from vit_tf.evaluation.named_data import NamedData, parse_data

BOTH = ("train", "test")


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("data/cifar10", NamedData("cifar10", "data/cifar10", BOTH)),
        ("data/cifar10/1.0.0/", NamedData("cifar10", "data/cifar10/1.0.0/", BOTH)),
        ("ten=/d/cifar10", NamedData("ten", "/d/cifar10", BOTH)),
        ("d/c:train[:98%]:test", NamedData("c", "d/c", ("train[:98%]", "test"))),
        (
            "f=gs://bucket/flowers:train[:800]+validation[:200]:test",
            NamedData("f", "gs://bucket/flowers", ("train[:800]+validation[:200]", "test")),
        ),
        ("d:odd/c:all:test", NamedData("c", "d:odd/c", ("all", "test"))),
    ],
)
def test_a_data_set_has_a_name_a_folder_and_splits(text, data):
    assert parse_data(text, BOTH) == data


def test_as_many_splits_as_the_tool_needs():
    assert parse_data("d/c:validation").splits == ("validation",)
    with pytest.raises(ValueError, match="with 1 split or none; given 'd/c:train:test'"):
        parse_data("d/c:train:test")
    with pytest.raises(ValueError, match="NAME=DATA_DIR:train:test, with 2 splits or none"):
        parse_data("d/c:train", BOTH)
    with pytest.raises(ValueError, match="given ''"):
        parse_data("")
