"""Names that were probably meant."""

import pytest

from vit_tf.suggestions import did_you_mean

NAMES = ("vit_b16", "vit_b32", "mixer_b16", "ResNet")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("vit_b61", " Did you mean 'vit_b16'?"),
        ("RESNET", " Did you mean 'ResNet'?"),  # as it is really written
        ("swin", ""),
        (16, ""),
    ],
)
def test_the_closest_names_are_a_sentence(given, sentence):
    assert did_you_mean(given, NAMES, count=1) == sentence


def test_several_names_stand_in_the_order_of_likeness():
    assert did_you_mean("vit_b1", NAMES, count=2) == " Did you mean 'vit_b16' or 'vit_b32'?"


def test_a_higher_cutoff_proposes_less():
    assert did_you_mean("b16", NAMES, cutoff=0.4) and not did_you_mean("b16", NAMES, cutoff=0.9)
