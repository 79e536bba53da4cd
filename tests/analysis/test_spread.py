"""Values that are picked lie evenly, and the ends are among them."""

from vit_tf.analysis.spread import at_most, evenly_spread


def test_the_first_and_the_last_are_picked_and_others_between():
    assert evenly_spread(range(13), 4) == [0, 4, 8, 12]
    assert evenly_spread("abcdefg", 3) == ["a", "d", "g"]


def test_few_values_are_picked_again():
    assert evenly_spread(["a", "b"], 4) == ["a", "a", "b", "b"]


def test_at_most_leaves_few_values_as_they_are():
    assert at_most(["a", "b"], 4) == ["a", "b"]
    assert at_most(range(9), 3) == [0, 4, 8]
